"""Trusted projects: those that the user created or accepted on this machine.

A project references its scans by paths, also outside its folder, which are read when a case is
shown. A project from another source could reference any scan on the disk, so the user is shown the
folders that it reads from before it is opened (``Project.external_folders``). The list of trusted
projects is in the user's state folder (``NAPARI_DYCON_STATE``); if it is not readable or writable,
projects are trusted for the current process only.
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
MAX_PROJECTS = 5000  # the oldest are removed
MAX_FILE_BYTES = 2**24
_trusted_this_session: set[str] = set()  # trusted by this process, but not saved
LOCK_TIMEOUT_S = 2.0  # maximum wait for another process


def is_trusted(path: Path | str) -> bool:
    """Check whether the user created or accepted the project in a folder on this machine.

    Parameters
    ----------
    path : folder of a project; links in the path are resolved
    """
    key = _normalize_path(path)
    return key in _trusted_this_session or key in _read_trusted()


def trust(path: Path | str) -> None:
    """Mark the project in a folder as trusted."""
    key, folder = _normalize_path(path), user_state_dir()
    try:
        ensure_dir(folder)
        with folder_lock(folder, timeout_s=LOCK_TIMEOUT_S):
            others = [known for known in _read_trusted() if known != key]
            write_json(folder / FILE, {"projects": [*others, key][-MAX_PROJECTS:]})
    except (UserError, OSError):
        _trusted_this_session.add(
            key
        )  # the home folder is not writable; the user will be asked again


def list_trusted() -> list[str]:
    """List the folders of the trusted projects, in the order in which they became trusted."""
    return [*_read_trusted(), *sorted(_trusted_this_session)]


def _normalize_path(path: Path | str) -> str:
    # A name that is not valid text (bytes of another encoding) is still normalized.
    real = os.path.normcase(os.path.realpath(path))
    return real.encode("utf-8", "backslashreplace").decode("utf-8")


def _read_trusted() -> list[str]:
    try:
        values = read_json(user_state_dir() / FILE, MAX_FILE_BYTES)
    except (OSError, ValueError):  # missing or damaged: it will be rewritten
        return []
    projects = values.get("projects") if isinstance(values, dict) else None
    return (
        [item for item in projects if isinstance(item, str)] if isinstance(projects, list) else []
    )
