"""Links that lead out of a project, which come with a folder that somebody packed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from napari_dycon.errors import ProjectError

JUNCTION_REPARSE_TAG = 0xA0000003  # how Windows marks its other kind of link to a folder


def ensure_within(folder: Path, path: Path) -> Path:
    """Return the path when it leads to a place in the folder, wherever links on it lead.

    Everything that is written into a project goes through this, and everything that is read of it
    but its scans: links come with a folder that somebody packed.

    Raises
    ------
    ProjectError
        It leads out of the folder.
    """
    try:
        resolved, root = path.resolve(), folder.resolve()
    except (OSError, RuntimeError, ValueError):  # links in a circle
        resolved, root = Path(os.devnull), folder
    if resolved != root and not resolved.is_relative_to(root):
        raise ProjectError(
            f"{path} leads out of {folder} by a link or by its name; nothing is read or written "
            "there. Put a file or folder of its own in the place of the link."
        )
    return path


def is_external_link(folder: Path, path: Path) -> bool:
    """Whether a path is a link out of a folder; others are told by a glance."""
    if not path.is_symlink() and not _is_junction(path):
        return False
    try:
        ensure_within(folder, path)
    except ProjectError:
        return True
    return False


def _is_junction(path: Path) -> bool:
    """Windows' other kind of link to a folder, which counts as none."""
    return os.name == "nt" and os.path.realpath(path) != os.path.abspath(path)


def ensure_links_within(folder: Path, path: Path) -> Path:
    """Check a path below a folder as ``ensure_within`` does, which is slow, where it has links in
    it."""
    current, root = str(path), str(folder)
    while len(current) > len(root):
        if _is_link(current):
            return ensure_within(folder, path)
        current = os.path.dirname(current)
    return path


def _is_link(path: str) -> bool:
    try:
        state = os.lstat(path)
    except (OSError, ValueError):
        return False
    return (
        stat.S_ISLNK(state.st_mode) or getattr(state, "st_reparse_tag", 0) == JUNCTION_REPARSE_TAG
    )
