"""Links that lead out of a project, which come with a folder that somebody packed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from napari_dycon.errors import ProjectError

JUNCTION = 0xA0000003  # how Windows marks its other kind of link to a folder


def inside(folder: Path, path: Path) -> Path:
    """Return the path when it leads to a place in the folder, wherever links on it lead.

    Everything that is written into a project goes through this, and everything that is read of it
    but its scans: links come with a folder that somebody packed.

    Raises
    ------
    ProjectError
        It leads out of the folder.
    """
    try:
        real, home = path.resolve(), folder.resolve()
    except (OSError, RuntimeError, ValueError):  # links in a circle
        real, home = Path(os.devnull), folder
    if real != home and not real.is_relative_to(home):
        raise ProjectError(
            f"{path} leads out of {folder} by a link or by its name; nothing is read or written "
            "there. Put a file or folder of its own in the place of the link."
        )
    return path


def leads_out(folder: Path, path: Path) -> bool:
    """Whether a path is a link out of a folder; others are told by a glance."""
    if not path.is_symlink() and not _is_junction(path):
        return False
    try:
        inside(folder, path)
    except ProjectError:
        return True
    return False


def _is_junction(path: Path) -> bool:
    """Windows' other kind of link to a folder, which counts as none."""
    return os.name == "nt" and os.path.realpath(path) != os.path.abspath(path)


def inside_own(folder: Path, path: Path) -> Path:
    """Check a path below a folder as ``inside`` does, which is slow, where it has links in it."""
    here, home = str(path), str(folder)
    while len(here) > len(home):
        if _is_link(here):
            return inside(folder, path)
        here = os.path.dirname(here)
    return path


def _is_link(path: str) -> bool:
    try:
        state = os.lstat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISLNK(state.st_mode) or getattr(state, "st_reparse_tag", 0) == JUNCTION
