"""Write files atomically: each is whole or not there at all.

Write beside the target, flush to the disk, rename: a reader sees the old file or the new one, never
half of one.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from napari_dycon.errors import ProjectError

RENAME_TIMEOUT_S = 3.0  # seconds
MISSING_FOLDER_MESSAGE = "The folder {} is gone. Plug its drive in, or look where it went."


def temporary_path(path: Path) -> Path:
    """Name for a file or folder that is being made and takes the place of ``path`` at the end.

    It keeps the suffixes (writers look at them) and begins with a dot, so that it is never taken
    for a result; ``cleanup`` removes what a killed process left under such names.
    """
    return path.with_name(f".{secrets.token_hex(4)}.tmp.{path.name}")


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder that takes the target's place at the end.

    On an error it is removed and the old file stays as it was; an ``OSError`` becomes a
    ``ProjectError`` in words.
    """
    path = Path(path)
    temporary = temporary_path(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        _replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ProjectError(
            f"{path.name} could not be written in {path.parent}: {reason}. Check that the folder "
            "can be written to and that the disk is not full; the old file is unchanged."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_write_many(targets: Sequence[Path]) -> Iterator[list[Path]]:
    """Give temporary paths for files of one folder that belong together, as ``atomic_write`` does.

    Nothing moves before the last one is whole, so that a full disk leaves the old files alone and a
    crash hardly finds the moment in which some are new and others old. They move in their order.
    """
    folder = targets[0].parent
    staging = temporary_path(folder / targets[-1].name)
    try:
        ensure_dir(staging, existing_root=folder)
        files = [staging / target.name for target in targets]
        yield files
        for file, target in zip(files, targets, strict=True):
            _replace(file, target)
        _sync_folder(folder)
    except (OSError, ProjectError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        raise ProjectError(
            f"{targets[-1].name} and what belongs to it could not be written in {folder}: "
            f"{cause.strerror or cause}. Check that the folder can be written to and that the disk "
            "is not full."
        ) from cause
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _replace(temporary: Path, target: Path) -> None:
    """Put a file in the target's place; on Windows wait for who has the target open just now."""
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
    """Make a rename survive a power cut, where the system can (Windows cannot open folders).

    The rename is done already: some network file systems refuse this, and that is no error.
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
    """Write a whole file."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file, UTF-8."""
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        raise ProjectError(
            f"{path.name} cannot be written: a name in it is no text in any language (bytes of "
            "another encoding). Rename the file or folder that it is of."
        ) from None
    write_bytes(path, data)


def write_json(path: Path, value: Any) -> None:
    """Write a whole JSON file, readable by people."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def ensure_dir(folder: Path, *, existing_root: Path | None = None) -> None:
    """Make a folder and those above it where they are missing.

    ``existing_root`` has to exist already: a project on a drive that was unplugged must not be
    created again, empty, in the place where the drive comes back.
    """
    if existing_root is not None and not existing_root.is_dir():
        raise ProjectError(MISSING_FOLDER_MESSAGE.format(existing_root))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProjectError(
            f"The folder {folder} cannot be created: {error.strerror or error}. Choose a place "
            "that you may write to."
        ) from error
