"""Atomic writing of files.

Data is written to a temporary file, flushed to the disk and renamed: a reader sees the old file or
the new one, never a partial one.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from napari_dycon.errors import ProjectError

RENAME_TIMEOUT_S = 3.0
ABANDON_ATTEMPTS = 5  # to remove a folder while another thread writes into it
MISSING_FOLDER_MESSAGE = "The folder {} is gone. Connect its drive, or restore the folder."


_unfinished: set[Path] = set()  # temporary files and folders that are being written
_rename_lock = threading.RLock()  # held while complete files replace old ones


def temporary_path(path: Path) -> Path:
    """Return a temporary path for a file or folder that will replace ``path``.

    It keeps the suffixes (writers need them) and begins with a dot, so that it is never mistaken
    for a result; ``cleanup`` removes temporary files of killed processes.
    """
    return path.with_name(f".{secrets.token_hex(4)}.tmp.{path.name}")


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, which replaces the target at the end.

    On an error it is removed and the old file is unchanged; an ``OSError`` is converted to a
    ``ProjectError``.
    """
    path = Path(path)
    temporary = temporary_path(path)
    _unfinished.add(temporary)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        with _rename_lock:
            _replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ProjectError(
            f"{path.name} could not be written in {path.parent}: {reason}. Check that the folder "
            "is writable and that the disk is not full; the old file is unchanged."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        _unfinished.discard(temporary)


@contextlib.contextmanager
def atomic_write_many(targets: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield temporary paths for several files of one folder, as ``atomic_write`` does.

    Files are renamed, in order, only after all are complete: a full disk leaves the old files
    unchanged, and a crash is unlikely to leave a mixture of old and new files.
    """
    folder = targets[0].parent
    staging = temporary_path(folder / targets[-1].name)
    _unfinished.add(staging)
    try:
        ensure_dir(staging, existing_root=folder)
        files = [staging / target.name for target in targets]
        yield files
        with _rename_lock:
            for file, target in zip(files, targets, strict=True):
                _replace(file, target)
        _sync_folder(folder)
    except (OSError, ProjectError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        raise ProjectError(
            f"{targets[-1].name} and its related files could not be written in {folder}: "
            f"{cause.strerror or cause}. Check that the folder is writable and that the disk "
            "is not full."
        ) from cause
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        _unfinished.discard(staging)


def abandon_writes(timeout_s: float) -> None:
    """Let files that are being written become complete, or remove them after a timeout.

    To be called before the process ends while other threads may still write: no target is
    half-written or replaced after this returns, and no temporary file remains.
    """
    deadline = time.monotonic() + timeout_s
    while _unfinished and time.monotonic() < deadline:
        time.sleep(0.02)
    _rename_lock.acquire()  # never released: complete files replace old ones together or not at all
    for temporary in list(_unfinished):
        for _ in range(ABANDON_ATTEMPTS):
            shutil.rmtree(temporary, ignore_errors=True)
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            if not temporary.exists():
                break


def move_file(source: Path, target: Path) -> None:
    """Rename a file within a file system, so that it survives a power failure.

    Raises
    ------
    OSError
        The file cannot be moved; it is unchanged.
    """
    _replace(source, target)
    for folder in {source.parent, target.parent}:
        _sync_folder(folder)


def _replace(temporary: Path, target: Path) -> None:
    """Replace the target by a file; on Windows, wait while another process has it open."""
    deadline = time.monotonic() + RENAME_TIMEOUT_S
    while True:
        try:
            os.replace(temporary, target)
            return
        except PermissionError:
            if os.name != "nt" or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power failure, if supported (Windows cannot open folders).

    Errors are ignored, since the rename is done and some network file systems do not support this.
    """
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        raise ProjectError(
            f"{path.name} cannot be written: it contains a name that is not valid text (bytes of "
            "another encoding). Rename the file or folder with this name."
        ) from None
    write_bytes(path, data)


def write_json(path: Path, value: Any) -> None:
    """Write an indented JSON file atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def ensure_dir(folder: Path, *, existing_root: Path | None = None) -> None:
    """Create a folder and missing parents.

    ``existing_root`` must exist already: a project on a disconnected drive must not be recreated as
    an empty folder at the mount point.
    """
    if existing_root is not None and not existing_root.is_dir():
        raise ProjectError(MISSING_FOLDER_MESSAGE.format(existing_root))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProjectError(
            f"The folder {folder} cannot be created: {error.strerror or error}. Choose a writable "
            "folder."
        ) from error
