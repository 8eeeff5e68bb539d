"""Validation of the paths by which a project references its scans: local paths only.

Scans are referenced wherever they are stored. Opening an untrusted project must not connect to
another machine, since this sends the user's name and password hash on Windows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath

from napari_dycon.errors import ProjectError
from napari_dycon.project.trusted_projects import is_trusted

MAX_PATH_LENGTH = 4096
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+:/{1,2}")  # at least two letters: C:/ is a drive


def path_error(text: str) -> str | None:
    """Describe what is wrong with the path of a scan; ``None`` if it is valid."""
    if not text or len(text) > MAX_PATH_LENGTH or "\0" in text:
        return f"expected a path of 1 to {MAX_PATH_LENGTH} characters"
    if not text.isascii() and re.search("[\ud800-\udfff]", text):
        return "expected a path of valid characters"
    if _URL.match(text):
        return "expected a path on this machine, not an address on the network"
    return None


def reject_network_path(image: str, folder: Path, *, is_windows: bool = os.name == "nt") -> None:
    """Reject a scan on a network share, unless the project is trusted or on the same share.

    Parameters
    ----------
    image : path in the project
    folder : folder of the project
    """
    drive = PureWindowsPath(image).drive
    if not is_windows or not drive.startswith("\\\\"):
        return
    if drive.lower() != PureWindowsPath(folder).drive.lower() and not is_trusted(folder):
        raise ProjectError(
            f"{folder.name} references a scan on another machine, {drive}, but you did not create "
            "the project on this one. Nothing was read. Open it in the window and accept it, or "
            "copy the scans."
        )


def external_folders(folder: Path, images: Iterable[str]) -> list[Path]:
    """List the folders outside a project that contain its scans, sorted; no scan is opened.

    Parameters
    ----------
    folder : folder of the project
    images : paths in the project
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
    for parent, names in names_by_folder.items():  # links may point outside
        real_parent = Path(os.path.realpath(parent))
        if not real_parent.is_relative_to(real_project):
            external.add(real_parent)
            continue
        for name in names:
            if os.path.islink(path := os.path.join(parent, name)):
                target = Path(os.path.realpath(path)).parent
                external |= set() if target.is_relative_to(real_project) else {target}
    return sorted(external)
