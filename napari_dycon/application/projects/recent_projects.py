"""Projects that were opened last: their folders, in the user's state folder.

Nothing but paths is stored, and the list can be cleared.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from napari_dycon.core.atomic import ensure_dir, write_json
from napari_dycon.core.locks import folder_lock
from napari_dycon.core.untrusted import read_json
from napari_dycon.core.user_dirs import user_state_dir
from napari_dycon.errors import DyconError
from napari_dycon.project.store import Project

FILE = "recent-projects.json"
MAX_PROJECTS = 10
MAX_FILE_BYTES = 2**20
LOCK_TIMEOUT_S = 2.0  # maximum wait for another process


def list_recent_projects() -> list[Path]:
    """List the folders of the projects opened last that still exist, the newest first."""
    return [path for path in _read() if _is_project(path)]


def add_recent_project(path: Path) -> None:
    """Put the folder of a project at the top of the list; errors are ignored."""
    _change([path, *(known for known in _read() if known != path)])


def clear_recent_projects() -> None:
    """Forget all projects."""
    _change([])


def _change(paths: list[Path]) -> None:
    folder = user_state_dir()
    with contextlib.suppress(DyconError, OSError):  # the home folder is not writable
        ensure_dir(folder)
        with folder_lock(folder, timeout_s=LOCK_TIMEOUT_S):
            write_json(folder / FILE, {"projects": [str(path) for path in paths[:MAX_PROJECTS]]})


def _read() -> list[Path]:
    try:
        values = read_json(user_state_dir() / FILE, MAX_FILE_BYTES)
    except (OSError, ValueError):  # missing or damaged: it will be rewritten
        return []
    projects = values.get("projects") if isinstance(values, dict) else None
    if not isinstance(projects, list):
        return []
    texts = [item for item in projects if isinstance(item, str) and "\0" not in item]
    return [Path(text) for text in texts if Path(text).is_absolute()][:MAX_PROJECTS]


def _is_project(path: Path) -> bool:
    try:
        return Project.is_project(path)
    except OSError:
        return False
