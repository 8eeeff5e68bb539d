"""How a project names its scans: paths on this machine, and nothing else.

Scans are referenced wherever they lie. What must not happen is that opening a project of others
makes this machine call another one, which on Windows hands over the user's name and password hash.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath

from napari_dycon.errors import ProjectError
from napari_dycon.project.trusted_projects import is_trusted

MAX_PATH_LENGTH = 4096
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+:/{1,2}")  # two letters at least: C:/ is a drive


def path_error(text: str) -> str | None:
    """Say what is wrong with the path of a scan; ``None`` when it can be one."""
    if not text or len(text) > MAX_PATH_LENGTH or "\0" in text:
        return f"expected a path of 1 to {MAX_PATH_LENGTH} letters"
    if not text.isascii() and re.search("[\ud800-\udfff]", text):
        return "expected a path of whole letters"
    if _URL.match(text):
        return "expected a path on this machine, not an address on the network"
    return None


def reject_network_path(image: str, folder: Path, *, is_windows: bool = os.name == "nt") -> None:
    """Refuse a scan on a share of another machine, unless the project is known or lies there too.

    Parameters
    ----------
    image : path as the project names it
    folder : of the project
    """
    drive = PureWindowsPath(image).drive
    if not is_windows or not drive.startswith("\\\\"):
        return
    if drive.lower() != PureWindowsPath(folder).drive.lower() and not is_trusted(folder):
        raise ProjectError(
            f"{folder.name} names a scan on another machine, {drive}, and was not made by you on "
            "this one. Nothing was read. Open it in the window and accept it, or copy the scans."
        )


def external_folders(folder: Path, images: Iterable[str]) -> list[Path]:
    """Folders outside a project's own in which its scans lie, sorted; no scan is opened.

    Parameters
    ----------
    folder : of the project
    images : paths as the project names them
    """
    project_path, real_project = str(folder), Path(os.path.realpath(folder))
    names_by_folder: dict[str, set[str]] = {}
    external: set[Path] = set()
    for image in images:
        parent, name = os.path.split(os.path.normpath(os.path.join(project_path, image)))
        if Path(parent) in external:
            continue
        if parent == project_path or parent.startswith(project_path.rstrip(os.sep) + os.sep):
            names_by_folder.setdefault(parent, set()).add(name)
        else:
            external.add(Path(parent))
    for parent, names in names_by_folder.items():  # links may lead out of it
        real_parent = Path(os.path.realpath(parent))
        if not real_parent.is_relative_to(real_project):
            external.add(real_parent)
            continue
        for name in names:
            if os.path.islink(path := os.path.join(parent, name)):
                target = Path(os.path.realpath(path)).parent
                external |= set() if target.is_relative_to(real_project) else {target}
    return sorted(external)
