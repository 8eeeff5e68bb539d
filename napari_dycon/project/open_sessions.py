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
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from napari_dycon.core.atomic import write_json
from napari_dycon.core.containment import inside
from napari_dycon.core.heartbeat import FRESHEN, ProcessIdentity, disk_time, is_fresh
from napari_dycon.core.untrusted import number, read_json
from napari_dycon.errors import DyconError, ProjectError

FOLDER = ".open"
PATIENCE = 0.5  # seconds that a window waits for a slow drive
MOST_HOLDERS = 100
MOST_BYTES = 2**14
MOST_LETTERS = 60


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
        here = self.identity.is_here()
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
        self._entered, self._left = threading.Event(), threading.Event()
        # One thread does all of it: a drive that hangs must not hold up the window, nor its end.
        self._thread = threading.Thread(target=self._live, name="project presence", daemon=True)

    def enter(self) -> None:
        """Write the file and keep it fresh; on a slow drive that comes after the return."""
        self._thread.start()
        self._entered.wait(PATIENCE)

    def leave(self) -> None:
        """Take the file away; on a slow drive that comes after the return."""
        self._left.set()
        self._thread.join(PATIENCE)

    def is_of(self, project: Path) -> bool:
        """Whether it tells of this project."""
        return self._project == project and not self._left.is_set()

    def _live(self) -> None:
        self._write()
        self._entered.set()
        while not self._left.wait(FRESHEN):
            self._write()
        with contextlib.suppress(OSError):
            self._file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others are there still
            self._file.parent.rmdir()

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
    now = disk_time(folder) if tidy and files else time.time()
    for file in files:
        holder = _read(file)
        if holder is None:
            continue
        identity = holder.identity
        if identity.is_alive() if identity.is_here() else is_fresh(file, now):
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
    if since is None or not isinstance(user, str):
        return None
    return Holder(identity, user[:MOST_LETTERS], since)


def _is_own(project: Path, folder: Path) -> bool:
    """Whether the folder is one of the project's own, and no link out of it."""
    try:
        inside(project, folder)
    except ProjectError:
        return False
    return folder.is_dir()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no name of a user at all, as in some containers
        return "somebody"
