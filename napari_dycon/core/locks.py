"""Locks on folders: one writer at a time, across processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from napari_dycon.core.atomic import MISSING_FOLDER_MESSAGE
from napari_dycon.errors import BusyError, ProjectError


@contextlib.contextmanager
def folder_lock(folder: Path, timeout_s: float = 10.0) -> Iterator[None]:
    """Hold a folder for a short read-change-write; others wait, then get a ``BusyError``."""
    from filelock import FileLock, Timeout

    if not folder.is_dir():  # a disconnected drive; the lock would recreate the folder
        raise ProjectError(MISSING_FOLDER_MESSAGE.format(folder))
    lock_path = folder / ".lock"
    if lock_path.is_symlink():  # old versions of filelock follow the link and truncate its target
        raise ProjectError(f"{lock_path} is a link; expected a regular file. Delete it.")
    file_lock = FileLock(lock_path, timeout=timeout_s)
    try:
        file_lock.acquire()
    except Timeout:
        raise BusyError(
            f"Another session or command is changing {folder.name} and has not finished within "
            f"{timeout_s:.0f} s. Close it, or try again."
        ) from None
    except OSError as error:
        raise ProjectError(
            f"{folder} is not writable ({error.strerror or error}). Choose another folder, or "
            "ask for write permission."
        ) from error
    try:
        yield
    finally:
        file_lock.release()
