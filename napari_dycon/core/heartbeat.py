"""Who is at work still: processes of this machine by their numbers, others by fresh files.

On a share the only sign of another machine's process is a file whose date goes on. Dates are
compared by the clock of the disk that both write to: the clocks of two machines differ.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from napari_dycon.core.atomic import temporary_beside
from napari_dycon.core.untrusted import number, whole
from napari_dycon.errors import DyconError

FRESHEN = 20.0  # seconds between signs of life
STALE = 90.0  # seconds without one, after which a writer counts as gone
MOST_LETTERS = 253  # of a machine's name


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


def is_fresh(file: Path, now: float) -> bool:
    """Whether a file's writer gave a sign of life lately; ``now`` is the time by its disk.

    A date to come is none: a living writer sets it right with the next one.
    """
    try:
        return abs(now - file.stat().st_mtime) < STALE
    except OSError:
        return False


class Watch:
    """Watches a file's date go on, by the clock of this machine and without writing anything."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._date = self._read()
        self._since = time.monotonic()

    def is_fresh(self) -> bool:
        """Whether the date changed lately; a drive that is away for less time does no harm."""
        date = self._read()
        if date is not None and date != self._date:
            self._date, self._since = date, time.monotonic()
        return time.monotonic() - self._since < STALE

    def _read(self) -> int | None:
        try:
            return self._file.stat().st_mtime_ns
        except OSError:
            return None


@contextlib.contextmanager
def repeated(give_sign: Callable[[], None]) -> Iterator[None]:
    """Give signs of life from a thread of its own.

    Files are written anew for it: to set a date alone would set it by the clock of this machine.
    """
    over = threading.Event()

    def freshen() -> None:
        while not over.wait(FRESHEN):
            with contextlib.suppress(DyconError, OSError):  # a drive that is away for a while
                give_sign()

    threading.Thread(target=freshen, name="signs of life", daemon=True).start()
    try:
        yield
    finally:
        over.set()
