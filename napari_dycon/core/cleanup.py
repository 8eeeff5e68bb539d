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

from napari_dycon.core.heartbeat import disk_time

OLD = 3600.0  # seconds without a change; what is younger may belong to another window's process
PATTERN = re.compile(r"\.[0-9a-f]{8}\.tmp\.\S")


def sweep(folder: Path) -> list[Path]:
    """Remove unfinished files and folders that nobody has written to for an hour.

    Looks into this folder alone. Only names that ``atomic.temporary_beside`` gives are touched, no
    links are followed, and what cannot be removed stays.

    Returns
    -------
    What was removed.
    """
    removed = []
    try:
        found = [folder / name for name in os.listdir(folder) if PATTERN.match(name)]
    except OSError:
        return []
    now = disk_time(folder) if found else 0.0
    for path in found:
        with contextlib.suppress(OSError):
            if now - _last_change(path) < OLD:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            removed.append(path)
    return removed


def sweep_project(folder: Path) -> list[Path]:
    """Sweep the folders of a project in which this program writes; returns what was removed."""
    places = [
        folder,
        folder / ".open",
        folder / "labels",
        folder / "cache",
        folder / "cache" / "pictures",
    ]
    for part in ("runs", "predictions"):
        with contextlib.suppress(OSError):
            places += [path for path in (folder / part).iterdir() if path.is_dir()]
    for run in [path for path in places if path.parent.name == "runs"]:
        state = run / "state"
        places += [state, state / "labels", state / "borrowed"]
    home = folder.resolve()
    inside = [
        place for place in places if place.resolve().is_relative_to(home)
    ]  # no links out of it
    return [path for place in inside for path in sweep(place)]


def _last_change(path: Path) -> float:
    """When something was last written to a file, or to anything in a folder; epoch seconds."""
    inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
    times: list[float] = [item.lstat().st_mtime for item in (path, *inside)]
    return max(times)
