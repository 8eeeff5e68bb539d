"""Reading, locked changes and atomic writing of a project's ``project.json``."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_dycon.core.atomic import temporary_path, write_json
from napari_dycon.core.containment import ensure_within
from napari_dycon.core.locks import folder_lock
from napari_dycon.core.untrusted import read_bytes
from napari_dycon.errors import ProjectError, UserError
from napari_dycon.project.models import Case, ProjectManifest, parse_manifest, validate_manifest

FILE = "project.json"
MAX_MANIFEST_BYTES = 2**26  # a hundred thousand cases take a fifth of it


def is_project(path: Path | str) -> bool:
    """Check whether a folder contains a project."""
    return (Path(path) / FILE).is_file()


def read(folder: Path) -> ProjectManifest:
    """Read the manifest of a project; ``ProjectError`` if it is missing or invalid."""
    return parse_manifest(_read_text(folder), folder / FILE)


def _read_text(folder: Path) -> str:
    path = folder / FILE
    if folder.is_file():
        raise ProjectError(f"{folder} is a file; expected the folder of a project.")
    try:
        return read_bytes(ensure_within(folder, path), MAX_MANIFEST_BYTES).decode("utf-8")
    except FileNotFoundError:
        raise ProjectError(
            f"{folder} is not a project: it has no {FILE}. Choose another folder, or create a "
            "project from a folder of scans."
        ) from None
    except (OSError, ValueError) as error:
        raise ProjectError(f"{path} cannot be read: {error}.") from None


def can_write(folder: Path) -> bool:
    """Check whether files can be created in a folder; Windows requires an attempt."""
    if os.name != "nt":
        return os.access(folder, os.W_OK)
    probe = temporary_path(folder / "probe")
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError:
        return False
    return True


def check_target_folder(path: Path) -> None:
    """Reject a target folder that is not empty."""
    if is_project(path):
        raise ProjectError(f"{path} is already a project. Open it, or choose another folder.")
    if path.exists() and not path.is_dir():
        raise ProjectError(f"{path} is a file. Choose a new or empty folder for the project.")
    if path.exists() and any(path.iterdir()):
        raise ProjectError(f"{path} is not empty. Choose a new or empty folder for the project.")


def edit_manifest(folder: Path, edit: Callable[[dict[str, Any]], object]) -> ProjectManifest:
    """Read, change, validate and write the manifest under the lock; returns the new content."""
    ensure_within(folder, folder / "labels")  # the edit may write there
    with folder_lock(folder):
        values = read(folder).model_dump()
        edit(values)
        file = validate_manifest(values, folder / FILE, "Nothing was changed.")
        write_json(folder / FILE, file.model_dump())
        return file


class ManifestStore:
    """Manifest of an open project: its content as last read, and changes to it.

    Attributes
    ----------
    folder : folder of the project
    content : content of ``project.json`` when it was last read or written
    read_only_reason : why the project cannot be changed; ``None`` if it can
    """

    def __init__(
        self, folder: Path, content: ProjectManifest, read_only_reason: str | None = None
    ) -> None:
        self.folder = folder
        self.content = content
        self.read_only_reason = read_only_reason

    def get_case(self, case_id: str) -> Case:
        """Find a case by its id."""
        if (match := self.content.cases_by_id.get(case_id)) is not None:
            return match
        ids = [case.id for case in self.content.cases]
        close = difflib.get_close_matches(case_id, ids, 3)
        hint = f" Did you mean {', '.join(close)}?" if close else " List them with `cases`."
        raise UserError(f"There is no case '{case_id}' in {self.content.name}.{hint}")

    def require_writable(self) -> None:
        """Raise ``ProjectError`` if the project is read-only."""
        if self.read_only_reason is not None:
            raise ProjectError(
                f"{self.content.name} is read-only: {self.read_only_reason}. To edit it, open it "
                "again, or open a copy of its folder that you can write to."
            )

    def reload(self) -> None:
        """Read ``project.json`` again, which another session may have changed."""
        self.content = read(self.folder)

    def edit(self, edit: Callable[[dict[str, Any]], object]) -> None:
        """Read, change, validate and write ``project.json`` under the lock."""
        self.require_writable()
        self.content = edit_manifest(self.folder, edit)

    def update_case(self, case_id: str, **changes: Any) -> None:
        """Change fields of one case."""
        self.get_case(case_id)

        def change(values: dict[str, Any]) -> None:
            for item in values["cases"]:
                if item["id"] == case_id:
                    item.update(changes)

        self.edit(change)
