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

from napari_dycon.core.atomic import temporary_path
from napari_dycon.core.untrusted import parse_integer, parse_number
from napari_dycon.errors import DyconError

HEARTBEAT_INTERVAL_S = 20.0  # seconds between heartbeats
HEARTBEAT_TIMEOUT_S = 90.0  # seconds without one, after which a writer counts as gone
MAX_HOSTNAME_LENGTH = 253  # of a machine's name


@dataclass(frozen=True)
class ProcessIdentity:
    """Which process does something: its id alone could belong to another one by now."""

    pid: int
    host: str
    started: float  # seconds since the epoch

    @classmethod
    def current(cls) -> ProcessIdentity:
        """Identity of this process."""
        return cls.from_pid(os.getpid())

    @classmethod
    def from_pid(cls, pid: int) -> ProcessIdentity:
        """Identity of a process that was just started."""
        return cls(pid, socket.gethostname(), _read_start_time(pid) or time.time())

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ProcessIdentity:
        """Read what ``to_dict`` gave; ``ValueError`` for what names no process."""
        pid = parse_integer(values["pid"], 1, 2**31 - 1)
        started = parse_number(values["started"], 0, 1e12)
        host = str(values["host"])
        if pid is None or started is None or len(host) > MAX_HOSTNAME_LENGTH:
            raise ValueError("no process is named so")
        return cls(pid, host, started)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    def is_local(self) -> bool:
        """Whether it is a process of this machine, of which ``is_alive`` knows."""
        return self.host == socket.gethostname()

    def is_alive(self) -> bool:
        """Whether this very process still runs; one on another machine counts as dead."""
        if not self.is_local():
            return False
        started = _read_start_time(self.pid)
        return started is not None and abs(started - self.started) < 2.0


def _read_start_time(pid: int) -> float | None:
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return float(process.create_time())
    except psutil.Error:
        return None


def filesystem_time(folder: Path) -> float:
    """Tell the time by the disk of a folder: on a share another machine's clock dates its files."""
    probe = temporary_path(folder / "now")
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def is_recent(file: Path, now: float) -> bool:
    """Whether a file's writer gave a sign of life lately; ``now`` is the time by its disk.

    A date to come is none: a living writer sets it right with the next one.
    """
    try:
        return abs(now - file.stat().st_mtime) < HEARTBEAT_TIMEOUT_S
    except OSError:
        return False


class HeartbeatMonitor:
    """Watches a file's date go on, by the clock of this machine and without writing anything."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._mtime = self._read_mtime()
        self._last_beat = time.monotonic()

    def is_recent(self) -> bool:
        """Whether the date changed lately; a drive that is away for less time does no harm."""
        mtime = self._read_mtime()
        if mtime is not None and mtime != self._mtime:
            self._mtime, self._last_beat = mtime, time.monotonic()
        return time.monotonic() - self._last_beat < HEARTBEAT_TIMEOUT_S

    def _read_mtime(self) -> int | None:
        try:
            return self._file.stat().st_mtime_ns
        except OSError:
            return None


@contextlib.contextmanager
def run_periodically(beat: Callable[[], None]) -> Iterator[None]:
    """Give heartbeats from a thread of its own.

    Files are written anew for it: to set a date alone would set it by the clock of this machine.
    """
    stopped = threading.Event()

    def beat_until_stopped() -> None:
        while not stopped.wait(HEARTBEAT_INTERVAL_S):
            with contextlib.suppress(DyconError, OSError):  # a drive that is away for a while
                beat()

    threading.Thread(target=beat_until_stopped, name="heartbeat", daemon=True).start()
    try:
        yield
    finally:
        stopped.set()
