"""Files are written whole or not at all, and one writer at a time.

Write beside the target, flush to the disk, rename: a reader sees the old file or the new one, never
half of one.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from napari_dycon.errors import BusyError, ProjectError
from napari_dycon.project.limited import number, whole

PATIENCE = 3.0  # seconds
MOST_LETTERS = 253  # of a machine's name
GONE = "The folder {} is gone. Plug its drive in, or look where it went."


def temporary_beside(path: Path) -> Path:
    """Name for a file or folder that is being made and takes the place of ``path`` at the end.

    It keeps the suffixes (writers look at them) and begins with a dot, so that it is never taken
    for a result; ``leftovers.sweep`` removes what a killed process left under such names.
    """
    return path.with_name(f".{secrets.token_hex(4)}.tmp.{path.name}")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder that takes the target's place at the end.

    On an error it is removed and the old file stays as it was; an ``OSError`` becomes a
    ``ProjectError`` in words.
    """
    path = Path(path)
    temporary = temporary_beside(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        _rename(temporary, path)
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
def replacing_together(targets: Sequence[Path]) -> Iterator[list[Path]]:
    """Give temporary paths for files of one folder that belong together, as ``replacing`` does.

    Nothing moves before the last one is whole, so that a full disk leaves the old files alone and a
    crash hardly finds the moment in which some are new and others old. They move in their order.
    """
    folder = targets[0].parent
    staging = temporary_beside(folder / targets[-1].name)
    try:
        make_folder(staging, within=folder)
        files = [staging / target.name for target in targets]
        yield files
        for file, target in zip(files, targets, strict=True):
            _rename(file, target)
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


def _rename(temporary: Path, path: Path) -> None:
    """Put a file in the target's place; on Windows wait for who has the target open just now."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            os.replace(temporary, path)
            return
        except PermissionError:
            if os.name != "nt" or time.monotonic() > end:
                raise
            time.sleep(0.02)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the system can (Windows cannot open folders)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:  # some network file systems refuse it
        pass
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file."""
    with replacing(path) as temporary:
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


def inside(folder: Path, path: Path) -> Path:
    """Return the path when it leads to a place in the folder, wherever links on it lead.

    Everything that is written into a project goes through this, and everything that is read of it
    but its scans: links come with a folder that somebody packed.

    Raises
    ------
    ProjectError
        It leads out of the folder.
    """
    try:
        real, home = path.resolve(), folder.resolve()
    except (OSError, RuntimeError, ValueError):  # links in a circle
        real, home = Path(os.devnull), folder
    if real != home and not real.is_relative_to(home):
        raise ProjectError(
            f"{path} leads out of {folder} by a link or by its name; nothing is read or written "
            "there. Put a file or folder of its own in the place of the link."
        )
    return path


def leads_out(folder: Path, path: Path) -> bool:
    """Whether a path is a link out of a folder; others are told by a glance."""
    if not path.is_symlink() and not _is_junction(path):
        return False
    try:
        inside(folder, path)
    except ProjectError:
        return True
    return False


def _is_junction(path: Path) -> bool:
    """Windows' other kind of link to a folder, which counts as none."""
    return os.name == "nt" and os.path.realpath(path) != os.path.abspath(path)


def make_folder(folder: Path, *, within: Path | None = None) -> None:
    """Make a folder and those above it where they are missing.

    ``within`` has to be there already: a project on a drive that was unplugged must not begin anew,
    empty, in the place where the drive comes back.
    """
    if within is not None and not within.is_dir():
        raise ProjectError(GONE.format(within))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProjectError(
            f"The folder {folder} cannot be made: {error.strerror or error}. Choose a place that "
            "you may write to."
        ) from error


def disk_time(folder: Path) -> float:
    """Tell the time by the disk of a folder: on a share another machine's clock dates its files."""
    probe = temporary_beside(folder / "now")
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_lock(folder: Path, timeout: float = 10.0) -> Iterator[None]:
    """Hold a folder for a short read-change-write; others wait, then get a ``BusyError``."""
    from filelock import FileLock, Timeout

    if not folder.is_dir():  # a drive that was unplugged; the lock would make the folder anew
        raise ProjectError(GONE.format(folder))
    lock = folder / ".lock"
    if lock.is_symlink():  # old locks follow it and empty what they find
        raise ProjectError(f"{lock} is a link; expected a file of its own. Delete it.")
    held = FileLock(lock, timeout=timeout)
    try:
        held.acquire()
    except Timeout:
        raise BusyError(
            f"Another window or command is changing {folder.name} and has not finished within "
            f"{timeout:.0f} s. Close it, or try again."
        ) from None
    except OSError as error:
        raise ProjectError(
            f"{folder} cannot be written to ({error.strerror or error}). Choose a folder of your "
            "own, or ask for the right to change this one."
        ) from error
    try:
        yield
    finally:
        held.release()


@dataclass(frozen=True)
class ProcessIdentity:
    """Which process does something: its id alone could belong to another one by now."""

    pid: int
    host: str
    started: float  # seconds since the epoch

    @classmethod
    def current(cls) -> ProcessIdentity:
        """Identity of this process."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """Identity of a process that was just started."""
        return cls(pid, socket.gethostname(), _start_time(pid) or time.time())

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ProcessIdentity:
        """Read what ``to_dict`` gave; ``ValueError`` for what names no process."""
        pid = whole(values["pid"], 1, 2**31 - 1)
        started = number(values["started"], 0, 1e12)
        host = str(values["host"])
        if pid is None or started is None or len(host) > MOST_LETTERS:
            raise ValueError("no process is named so")
        return cls(pid, host, started)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    def is_here(self) -> bool:
        """Whether it is a process of this machine, of which ``is_alive`` knows."""
        return self.host == socket.gethostname()

    def is_alive(self) -> bool:
        """Whether this very process still runs; one on another machine counts as dead."""
        if not self.is_here():
            return False
        started = _start_time(self.pid)
        return started is not None and abs(started - self.started) < 2.0


def _start_time(pid: int) -> float | None:
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return float(process.create_time())
    except psutil.Error:
        return None
