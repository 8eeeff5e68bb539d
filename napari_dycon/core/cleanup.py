"""Removal of stale temporary files and folders.

Everything is written under a temporary name first (see ``atomic.py``). A killed process leaves such
files behind, which are hidden but take up disk space.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

from napari_dycon.core.heartbeat import filesystem_time

STALE_AFTER_S = 3600.0  # without a change; newer files may belong to another process
TEMPORARY_NAME = re.compile(r"\.[0-9a-f]{8}\.tmp\.\S")


def remove_stale_temporaries(folder: Path) -> list[Path]:
    """Remove temporary files and folders that were not written to for an hour.

    Not recursive. Only names of ``atomic.temporary_path`` are removed, links are not followed, and
    errors are ignored.

    Returns
    -------
    removed paths
    """
    removed = []
    try:
        temporaries = [folder / name for name in os.listdir(folder) if TEMPORARY_NAME.match(name)]
    except OSError:
        return []
    now = filesystem_time(folder) if temporaries else 0.0
    for path in temporaries:
        with contextlib.suppress(OSError):
            if now - _find_last_change(path) < STALE_AFTER_S:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            removed.append(path)
    return removed


def clean_project(folder: Path) -> list[Path]:
    """Remove stale temporary files in the folders of a project; returns the removed paths."""
    folders = [
        folder,
        folder / ".sessions",
        folder / "labels",
        folder / "cache",
        folder / "cache" / "pictures",
    ]
    for parent in ("runs", "predictions"):
        with contextlib.suppress(OSError):
            folders += [path for path in (folder / parent).iterdir() if path.is_dir()]
    for parent in ("cases", "structures"):
        with contextlib.suppress(OSError):
            for path in (folder / "removed" / parent).iterdir():
                folders += [path, path / "labels"]
    runs = [path for path in folders if path.parent.name == "predictions"]
    folders += [run / stage for run in runs for stage in ("preliminary", "preview")]
    for run in [path for path in folders if path.parent.name == "runs"]:
        state = run / "state"
        folders += [state, state / "labels", state / "registrations"]
    root = folder.resolve()
    contained = [
        place for place in folders if place.resolve().is_relative_to(root)
    ]  # without links out of the project
    return [path for place in contained for path in remove_stale_temporaries(place)]


def _find_last_change(path: Path) -> float:
    """Find the last modification of a file, or of anything in a folder; epoch seconds."""
    contents = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
    times: list[float] = [item.lstat().st_mtime for item in (path, *contents)]
    return max(times)
