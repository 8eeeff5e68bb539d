"""Liveness of processes: local ones by process id, those of other machines by heartbeat files.

The heartbeat of a process on another machine is a file on a shared drive whose modification time
advances. Times are compared with the clock of the file system, since clocks of machines differ.
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

HEARTBEAT_INTERVAL_S = 20.0  # between heartbeats
HEARTBEAT_TIMEOUT_S = 90.0  # without a heartbeat, after which a process counts as dead
MAX_HOSTNAME_LENGTH = 253


@dataclass(frozen=True)
class ProcessIdentity:
    """Identity of a process: host, id and start time, since process ids are reused."""

    pid: int
    host: str
    started: float  # seconds since the epoch

    @classmethod
    def current(cls) -> ProcessIdentity:
        """Return the identity of this process."""
        return cls.from_pid(os.getpid())

    @classmethod
    def from_pid(cls, pid: int) -> ProcessIdentity:
        """Return the identity of a process that was just started."""
        return cls(pid, socket.gethostname(), _read_start_time(pid) or time.time())

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ProcessIdentity:
        """Build from values of ``to_dict``; ``ValueError`` if they are invalid."""
        pid = parse_integer(values["pid"], 1, 2**31 - 1)
        started = parse_number(values["started"], 0, 1e12)
        host = str(values["host"])
        if pid is None or started is None or len(host) > MAX_HOSTNAME_LENGTH:
            raise ValueError("invalid process identity")
        return cls(pid, host, started)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    def is_local(self) -> bool:
        """Check whether it is a process of this machine, as ``is_alive`` requires."""
        return self.host == socket.gethostname()

    def is_alive(self) -> bool:
        """Check whether this process is running; one on another machine counts as dead."""
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
    """Return the time of a folder's file system, whose clock may be that of another machine."""
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
    """Check whether a file has a recent heartbeat; ``now`` is the time of its file system.

    A time in the future is not recent: a running process corrects it with its next heartbeat.
    """
    try:
        return abs(now - file.stat().st_mtime) < HEARTBEAT_TIMEOUT_S
    except OSError:
        return False


class HeartbeatMonitor:
    """Monitor of a file's modification time with the local clock, without writing anything."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._mtime = self._read_mtime()
        self._last_beat = time.monotonic()

    def is_recent(self) -> bool:
        """Check whether the time changed recently; a short failure of the drive is tolerated."""
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
    """Call ``beat`` periodically in a background thread.

    It must rewrite a file, since setting only its time would use the clock of this machine.
    """
    stopped = threading.Event()

    def beat_until_stopped() -> None:
        while not stopped.wait(HEARTBEAT_INTERVAL_S):
            with contextlib.suppress(DyconError, OSError):  # the drive is temporarily unavailable
                beat()

    threading.Thread(target=beat_until_stopped, name="heartbeat", daemon=True).start()
    try:
        yield
    finally:
        stopped.set()
