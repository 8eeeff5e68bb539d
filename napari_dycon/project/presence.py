"""Who has a project open: a small file for each window or script, kept fresh while it is there.

Labels and lists of several windows are merged, so that nothing is lost when two work at once; this
is for people, who want to know before they start. A holder on this machine is known by its process;
one on another machine, which shares the folder, by how fresh its file is in the eyes of the disk
that both write to (the clocks of two machines differ).
"""

from __future__ import annotations

import contextlib
import getpass
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from napari_dycon.errors import DyconError, ProjectError
from napari_dycon.project.atomic import ProcessIdentity, inside, write_json
from napari_dycon.project.limited import number, read_json

FOLDER = ".open"
FRESHEN = 20.0  # seconds between signs of life
MOST_HOLDERS = 100
MOST_BYTES = 2**14
MOST_LETTERS = 60
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
            inside(self._project, self._file.parent).mkdir(exist_ok=True)
            write_json(self._file, self._values)


def holders(project: Path, *, tidy: bool = True) -> list[Holder]:
    """Everybody who has a project open.

    Parameters
    ----------
    project : its folder
    tidy : sweep away what windows left that died; otherwise nothing is changed
    """
    folder = project / FOLDER
    if not _is_own(project, folder):
        return []
    try:
        files = sorted(folder.glob("*.json"))[:MOST_HOLDERS]
    except OSError:
        return []
    found = []
    for file in files:
        holder = _read(file)
        if holder is None:
            continue
        if holder.identity.host == socket.gethostname():
            there = holder.identity.is_alive()
        else:
            with contextlib.suppress(OSError):
                now = _now(folder) if tidy else time.time()
                there = now - file.stat().st_mtime < STALE
        if there:
            found.append(holder)
        elif tidy:
            with contextlib.suppress(OSError):
                file.unlink()
    return sorted(found, key=lambda holder: holder.since)


def _read(file: Path) -> Holder | None:
    """Read who a file tells of; ``None`` for anything else that lies there."""
    try:
        values = read_json(file, MOST_BYTES)
        identity = ProcessIdentity.from_dict(values["process"])
        since = number(values["since"], 0, 2**40)
        user = values["user"]
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    if since is None or not isinstance(user, str) or len(identity.host) > MOST_LETTERS:
        return None
    return Holder(identity, user[:MOST_LETTERS], since)


def _is_own(project: Path, folder: Path) -> bool:
    """Whether the folder is one of the project's own, and no link out of it."""
    try:
        inside(project, folder)
    except ProjectError:
        return False
    return folder.is_dir()


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
