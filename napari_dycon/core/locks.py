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

    if not folder.is_dir():  # a drive that was unplugged; the lock would make the folder anew
        raise ProjectError(MISSING_FOLDER_MESSAGE.format(folder))
    lock_path = folder / ".lock"
    if lock_path.is_symlink():  # old locks follow it and empty what they find
        raise ProjectError(f"{lock_path} is a link; expected a file of its own. Delete it.")
    file_lock = FileLock(lock_path, timeout=timeout_s)
    try:
        file_lock.acquire()
    except Timeout:
        raise BusyError(
            f"Another window or command is changing {folder.name} and has not finished within "
            f"{timeout_s:.0f} s. Close it, or try again."
        ) from None
    except OSError as error:
        raise ProjectError(
            f"{folder} cannot be written to ({error.strerror or error}). Choose a folder of your "
            "own, or ask for the right to change this one."
        ) from error
    try:
        yield
    finally:
        file_lock.release()
