"""Who has a project open: a small file for each window or script, kept fresh while it is there.

Labels and lists of several windows are merged, so that nothing is lost when two work at once; this
is for people, who want to know before they start. A holder on this machine is known by its process;
one on another machine, which shares the folder, by how fresh its file is in the eyes of the disk
that both write to (the clocks of two machines differ).
"""

from __future__ import annotations

import contextlib
import getpass
import json
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from napari_dycon.errors import DyconError
from napari_dycon.project.atomic import ProcessIdentity, write_json

FOLDER = ".open"
FRESHEN = 20.0  # seconds between signs of life
STALE = 90.0  # seconds without one, after which a holder on another machine counts as gone


@dataclass(frozen=True)
class Holder:
    """Somebody who has the project open."""

    identity: ProcessIdentity
    user: str
    since: float  # seconds since the epoch

    def __str__(self) -> str:
        """Whom, where and since when, as in ``anna on ward-3, since 14:05``."""
        since = time.strftime("%H:%M", time.localtime(self.since))
        if time.time() - self.since > 20 * 3600:
            since = time.strftime("%d %B, %H:%M", time.localtime(self.since))
        here = self.identity.host == socket.gethostname()
        return f"{self.user} on {'this computer' if here else self.identity.host}, since {since}"


class Presence:
    """Says that somebody has a project open, from ``enter`` to ``leave``.

    A folder that cannot be written to is looked at without saying so.
    """

    def __init__(self, project: Path) -> None:
        self._file = project / FOLDER / f"{secrets.token_hex(6)}.json"
        self._project = project
        self._values = {
            "process": ProcessIdentity.current().to_dict(),
            "user": _user(),
            "since": round(time.time(), 3),
        }
        self._left = threading.Event()
        self._lock = threading.Lock()

    def enter(self) -> None:
        """Write the file, and keep it fresh in a thread of its own."""
        self._write()
        threading.Thread(target=self._freshen, name="project presence", daemon=True).start()

    def leave(self) -> None:
        """Take the file away."""
        with self._lock:  # not while it is being freshened
            self._left.set()
            with contextlib.suppress(OSError):
                self._file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # others are there still
                self._file.parent.rmdir()

    def is_of(self, project: Path) -> bool:
        """Whether it tells of this project."""
        return self._project == project and not self._left.is_set()

    def _freshen(self) -> None:
        while not self._left.wait(FRESHEN):
            with self._lock:
                if not self._left.is_set():
                    self._write()

    def _write(self) -> None:
        # A drive that is away for a while, or read-only; a project that is gone is not made anew.
        with contextlib.suppress(DyconError, OSError):
            self._file.parent.mkdir(exist_ok=True)
            write_json(self._file, self._values)


def holders(project: Path) -> list[Holder]:
    """Everybody who has a project open; what dead windows left is swept away."""
    folder = project / FOLDER
    try:
        files = sorted(folder.glob("*.json"))
    except OSError:
        return []
    found = []
    for file in files:
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            holder = Holder(
                ProcessIdentity.from_dict(values["process"]),
                str(values["user"])[:60],
                float(values["since"]),
            )
            here = holder.identity.host == socket.gethostname()
            fresh = here or _now(folder) - file.stat().st_mtime < STALE
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if holder.identity.is_alive() if here else fresh:
            found.append(holder)
        else:
            with contextlib.suppress(OSError):
                file.unlink()
    return sorted(found, key=lambda holder: holder.since)


def _now(folder: Path) -> float:
    """Return the time as the disk of a folder tells it."""
    probe = folder / f".{secrets.token_hex(6)}.now"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no name of a user at all, as in some containers
        return "somebody"
