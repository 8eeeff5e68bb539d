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
from napari_dycon.project.trusted_projects import is_known

MOST_LETTERS = 4096
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+:/{1,2}")  # two letters at least: C:/ is a drive


def why_not_a_path(text: str) -> str | None:
    """Say what is wrong with the path of a scan; ``None`` when it can be one."""
    if not text or len(text) > MOST_LETTERS or "\0" in text:
        return f"expected a path of 1 to {MOST_LETTERS} letters"
    if not text.isascii() and re.search("[\ud800-\udfff]", text):
        return "expected a path of whole letters"
    if _ADDRESS.match(text):
        return "expected a path on this machine, not an address on the network"
    return None


def check_share(image: str, folder: Path, *, windows: bool = os.name == "nt") -> None:
    """Refuse a scan on a share of another machine, unless the project is known or lies there too.

    Parameters
    ----------
    image : path as the project names it
    folder : of the project
    """
    drive = PureWindowsPath(image).drive
    if not windows or not drive.startswith("\\\\"):
        return
    if drive.lower() != PureWindowsPath(folder).drive.lower() and not is_known(folder):
        raise ProjectError(
            f"{folder.name} names a scan on another machine, {drive}, and was not made by you on "
            "this one. Nothing was read. Open it in the window and accept it, or copy the scans."
        )


def outside_folders(folder: Path, images: Iterable[str]) -> list[Path]:
    """Folders outside a project's own in which its scans lie, sorted; no scan is opened.

    Parameters
    ----------
    folder : of the project
    images : paths as the project names them
    """
    base, home = str(folder), Path(os.path.realpath(folder))
    inside: dict[str, set[str]] = {}
    found: set[Path] = set()
    for image in images:
        place, name = os.path.split(os.path.normpath(os.path.join(base, image)))
        if Path(place) in found:
            continue
        if place == base or place.startswith(base.rstrip(os.sep) + os.sep):
            inside.setdefault(place, set()).add(name)
        else:
            found.add(Path(place))
    for place, names in inside.items():  # links may lead out of it
        real = Path(os.path.realpath(place))
        if not real.is_relative_to(home):
            found.add(real)
            continue
        for name in names:
            if os.path.islink(path := os.path.join(place, name)):
                target = Path(os.path.realpath(path)).parent
                found |= set() if target.is_relative_to(home) else {target}
    return sorted(found)
