"""What killed processes leave behind: files and folders that were never finished.

Everything is written under a temporary name first (see ``atomic.py``). A process that is killed
leaves that name behind: invisible to people and to this program, but it takes up room.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

from napari_dycon.core.heartbeat import filesystem_time

STALE_AFTER_S = (
    3600.0  # seconds without a change; what is younger may belong to another window's process
)
TEMPORARY_NAME = re.compile(r"\.[0-9a-f]{8}\.tmp\.\S")


def remove_stale_temporaries(folder: Path) -> list[Path]:
    """Remove unfinished files and folders that nobody has written to for an hour.

    Looks into this folder alone. Only names that ``atomic.temporary_beside`` gives are touched, no
    links are followed, and what cannot be removed stays.

    Returns
    -------
    What was removed.
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
    """Sweep the folders of a project in which this program writes; returns what was removed."""
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
    for run in [path for path in folders if path.parent.name == "runs"]:
        state = run / "state"
        folders += [state, state / "labels", state / "registrations"]
    root = folder.resolve()
    contained = [
        place for place in folders if place.resolve().is_relative_to(root)
    ]  # no links out of it
    return [path for place in contained for path in remove_stale_temporaries(place)]


def _find_last_change(path: Path) -> float:
    """When something was last written to a file, or to anything in a folder; epoch seconds."""
    contents = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
    times: list[float] = [item.lstat().st_mtime for item in (path, *contents)]
    return max(times)
