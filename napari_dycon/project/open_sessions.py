"""Session markers: which processes have a project open.

Each session keeps a small file with a heartbeat in the project. Edits of several sessions are
merged, so that nothing is lost; markers serve to warn the user. A session on this machine is
identified by its process, one on another machine by the age of its file according to the file
system that both write to, since the clocks of two machines differ.
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
from napari_dycon.core.containment import ensure_within
from napari_dycon.core.heartbeat import (
    HEARTBEAT_INTERVAL_S,
    ProcessIdentity,
    filesystem_time,
    is_recent,
)
from napari_dycon.core.untrusted import parse_number, read_json
from napari_dycon.errors import DyconError, ProjectError

FOLDER = ".sessions"
REMOVE_TIMEOUT_S = 0.5  # maximum wait for a slow drive
MAX_SESSIONS = 100
MAX_MARKER_BYTES = 2**14
MAX_USER_LENGTH = 60


@dataclass(frozen=True)
class OpenSession:
    """A session that has the project open."""

    identity: ProcessIdentity
    user: str
    since: float  # seconds since the epoch

    def __str__(self) -> str:
        """Describe user, host and start, as in ``anna on ward-3, since 14:05``."""
        since = time.strftime("%H:%M", time.localtime(self.since))
        if time.time() - self.since > 20 * 3600:
            since = time.strftime("%d %B, %H:%M", time.localtime(self.since))
        is_local = self.identity.is_local()
        return (
            f"{self.user} on {'this computer' if is_local else self.identity.host}, since {since}"
        )


class SessionMarker:
    """Marker of a session that has a project open, from ``create`` to ``remove``.

    In a folder that is not writable there is no marker.
    """

    def __init__(self, project: Path) -> None:
        self._file = project / FOLDER / f"{secrets.token_hex(6)}.json"
        self._project = project
        self._values = {
            "process": ProcessIdentity.current().to_dict(),
            "user": _get_user_name(),
            "since": round(time.time(), 3),
        }
        self._created, self._removed = threading.Event(), threading.Event()
        # All file access is in one thread: a drive that hangs must not block the window or its end.
        self._thread = threading.Thread(
            target=self._refresh_loop, name="project presence", daemon=True
        )

    def create(self) -> None:
        """Write the file and start its heartbeat; asynchronous on a slow drive."""
        self._thread.start()
        self._created.wait(REMOVE_TIMEOUT_S)

    def remove(self) -> None:
        """Remove the file; asynchronous on a slow drive."""
        self._removed.set()
        self._thread.join(REMOVE_TIMEOUT_S)

    def belongs_to(self, project: Path) -> bool:
        """Check whether the marker is for this project."""
        return self._project == project and not self._removed.is_set()

    def _refresh_loop(self) -> None:
        self._write()
        self._created.set()
        while not self._removed.wait(HEARTBEAT_INTERVAL_S):
            self._write()
        with contextlib.suppress(OSError):
            self._file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # other sessions are still open
            self._file.parent.rmdir()

    def _write(self) -> None:
        # The drive may be unavailable or read-only; a deleted project must not be recreated.
        with contextlib.suppress(DyconError, OSError):
            ensure_within(self._project, self._file.parent).mkdir(exist_ok=True)
            write_json(self._file, self._values)


def list_open_sessions(project: Path, *, remove_stale: bool = True) -> list[OpenSession]:
    """List the sessions that have a project open.

    Parameters
    ----------
    project : folder of the project
    remove_stale : remove markers of sessions that have died; otherwise nothing is changed
    """
    folder = project / FOLDER
    if not _is_inside_project(project, folder):
        return []
    try:
        files = sorted(folder.glob("*.json"))[:MAX_SESSIONS]
    except OSError:
        return []
    sessions = []
    now = filesystem_time(folder) if remove_stale and files else time.time()
    for file in files:
        session = _read_session(file)
        if session is None:
            continue
        identity = session.identity
        if identity.is_alive() if identity.is_local() else is_recent(file, now):
            sessions.append(session)
        elif remove_stale:
            with contextlib.suppress(OSError):
                file.unlink()
    return sorted(sessions, key=lambda holder: holder.since)


def _read_session(file: Path) -> OpenSession | None:
    """Read a session marker; ``None`` for any other file."""
    try:
        values = read_json(file, MAX_MARKER_BYTES)
        identity = ProcessIdentity.from_dict(values["process"])
        since = parse_number(values["since"], 0, 2**40)
        user = values["user"]
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    if since is None or not isinstance(user, str):
        return None
    return OpenSession(identity, user[:MAX_USER_LENGTH], since)


def _is_inside_project(project: Path, folder: Path) -> bool:
    """Check that a folder is inside the project, and not a link out of it."""
    try:
        ensure_within(project, folder)
    except ProjectError:
        return False
    return folder.is_dir()


def _get_user_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no user name, as in some containers
        return "unknown user"
