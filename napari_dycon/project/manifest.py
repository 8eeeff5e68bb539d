"""``project.json`` in a project's folder: read, changed under a lock, and written whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_dycon.core.atomic import temporary_path, write_json
from napari_dycon.core.containment import ensure_within
from napari_dycon.core.locks import folder_lock
from napari_dycon.core.untrusted import read_bytes
from napari_dycon.errors import ProjectError
from napari_dycon.project.migrations import back_up
from napari_dycon.project.models import ProjectManifest, parse_manifest, validate_manifest

FILE = "project.json"
MAX_MANIFEST_BYTES = 2**26  # of that file; a hundred thousand cases take a fifth


def is_project(path: Path | str) -> bool:
    """Whether a folder holds a project."""
    return (Path(path) / FILE).is_file()


def read(folder: Path) -> ProjectManifest:
    """Read it; ``ProjectError`` in words where there is none, or none that can be read."""
    return parse_manifest(_read_text(folder), folder / FILE)


def _read_text(folder: Path) -> str:
    path = folder / FILE
    if folder.is_file():
        raise ProjectError(f"{folder} is a file; expected the folder of a project.")
    try:
        return read_bytes(ensure_within(folder, path), MAX_MANIFEST_BYTES).decode("utf-8")
    except FileNotFoundError:
        raise ProjectError(
            f"{folder} is no project: it has no {FILE}. Choose another folder, or make a project "
            "from a folder of scans."
        ) from None
    except (OSError, ValueError) as error:
        raise ProjectError(f"{path} cannot be read: {error}.") from None


def can_write(folder: Path) -> bool:
    """Whether files can be made in a folder; Windows tells only by trying."""
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
    """Refuse to make a project where something is already."""
    if is_project(path):
        raise ProjectError(f"{path} is a project already. Open it, or choose another folder.")
    if path.exists() and not path.is_dir():
        raise ProjectError(f"{path} is a file. Choose a new or an empty folder for the project.")
    if path.exists() and any(path.iterdir()):
        raise ProjectError(f"{path} is not empty. Choose a new or an empty folder for the project.")


def edit_manifest(folder: Path, edit: Callable[[dict[str, Any]], object]) -> ProjectManifest:
    """Read, change, check and write it under the lock; returns what it holds now."""
    ensure_within(folder, folder / "labels")  # what is changed may write there
    with folder_lock(folder):
        text = _read_text(folder)
        values = parse_manifest(text, folder / FILE).model_dump()
        edit(values)
        file = validate_manifest(values, folder / FILE, "Nothing was changed.")
        back_up(folder / FILE, text)
        write_json(folder / FILE, file.model_dump())
        return file
