"""Which projects this user has made or accepted on this machine.

A project names its scans by paths, also outside its own folder, and they are read when a case is
shown. That is what one wants of one's own project. One that came by mail could name any scan on the
disk, so whoever opens it should be told which folders it reads from:
``Project.outside_folders``. What is known is a list of folders in the user's state folder, changed
by ``NAPARI_DYCON_STATE``; where it cannot be read or written, nothing is known for longer than a
process lives, and nothing fails.
"""

from __future__ import annotations

import os
from pathlib import Path

from napari_dycon.core.atomic import ensure_dir, write_json
from napari_dycon.core.locks import folder_lock
from napari_dycon.core.untrusted import read_json
from napari_dycon.core.user_dirs import user_state_dir
from napari_dycon.errors import UserError

FILE = "known-projects.json"
MAX_PROJECTS = 5000  # the newest are kept
MAX_FILE_BYTES = 2**24
_trusted_this_session: set[str] = set()  # what this process could not write down
LOCK_TIMEOUT_S = 2.0  # seconds for another window that writes its own


def is_trusted(path: Path | str) -> bool:
    """Whether this user made the project in this folder on this machine, or accepted it.

    Parameters
    ----------
    path : folder of a project; links on the way to it do not matter
    """
    key = _normalize_path(path)
    return key in _trusted_this_session or key in _read_trusted()


def trust(path: Path | str) -> None:
    """Count the project in this folder as known from now on."""
    key, folder = _normalize_path(path), user_state_dir()
    try:
        ensure_dir(folder)
        with folder_lock(folder, timeout_s=LOCK_TIMEOUT_S):
            others = [known for known in _read_trusted() if known != key]
            write_json(folder / FILE, {"projects": [*others, key][-MAX_PROJECTS:]})
    except (UserError, OSError):
        _trusted_this_session.add(
            key
        )  # a home that cannot be written to; the user is asked again another day


def _normalize_path(path: Path | str) -> str:
    # A name that is no text (bytes of another encoding) still has one spelling.
    real = os.path.normcase(os.path.realpath(path))
    return real.encode("utf-8", "backslashreplace").decode("utf-8")


def _read_trusted() -> list[str]:
    try:
        values = read_json(user_state_dir() / FILE, MAX_FILE_BYTES)
    except (OSError, ValueError):  # not there yet, or damaged: written anew
        return []
    projects = values.get("projects") if isinstance(values, dict) else None
    return (
        [item for item in projects if isinstance(item, str)] if isinstance(projects, list) else []
    )
