"""Detection of links out of a project, which untrusted projects may contain."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from napari_dycon.errors import ProjectError

JUNCTION_REPARSE_TAG = 0xA0000003  # of directory junctions on Windows


def ensure_within(folder: Path, path: Path) -> Path:
    """Return a path if it is inside a folder after links are resolved.

    Used for everything that is written to a project and everything that is read from it except
    scans, because untrusted projects may contain links.

    Raises
    ------
    ProjectError
        The path is outside the folder.
    """
    try:
        resolved, root = path.resolve(), folder.resolve()
    except (OSError, RuntimeError, ValueError):  # circular links
        resolved, root = Path(os.devnull), folder
    if resolved != root and not resolved.is_relative_to(root):
        raise ProjectError(
            f"{path} leads out of {folder} by a link or by its name; nothing is read or written "
            "there. Replace the link by a file or folder."
        )
    return path


def is_external_link(folder: Path, path: Path) -> bool:
    """Check whether a path is a link out of a folder; fast for other paths."""
    if not path.is_symlink() and not _is_junction(path):
        return False
    try:
        ensure_within(folder, path)
    except ProjectError:
        return True
    return False


def _is_junction(path: Path) -> bool:
    """Check for a directory junction (Windows), which ``is_symlink`` does not report."""
    return os.name == "nt" and os.path.realpath(path) != os.path.abspath(path)


def ensure_links_within(folder: Path, path: Path) -> Path:
    """Check a path below a folder with ``ensure_within``, which is slow, only if it has links."""
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
