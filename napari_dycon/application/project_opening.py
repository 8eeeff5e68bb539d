"""Opening a project: whose it is, who else has it open, and whether it is only looked at."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_dycon.application.prompts import Question
from napari_dycon.core.cleanup import clean_project
from napari_dycon.project.open_sessions import OpenSession, SessionMarker, list_open_sessions
from napari_dycon.project.store import Project
from napari_dycon.project.trusted_projects import is_trusted, trust

if TYPE_CHECKING:
    from napari_dycon.session import Session

MOST_NAMED = 3
ONLY_LOOK = "you opened it only to look"


@dataclass(frozen=True)
class Found:
    """A project, who else has it open, and where a stranger's reads from outside its folder."""

    project: Project
    others: list[OpenSession]
    folders: list[Path]


class Opening:
    """Opens projects for a session, and tells others that it has one open."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._presence: SessionMarker | None = None

    def open(self, path: Path | str, *, read_only: bool) -> None:
        """Open a project; see ``Session.open_project``."""

        def work() -> Found:
            project = Project.open(path, read_only_reason=ONLY_LOOK if read_only else "")
            if not project.read_only_reason:
                clean_project(project.path)
            folders = [] if is_trusted(project.path) else project.external_folders()
            return Found(
                project,
                list_open_sessions(project.path, remove_stale=not project.read_only_reason),
                folders,
            )

        self._session.background.run(work, self._ask_whose_it_is, self._session.tell)

    def enter(self, project: Project) -> None:
        """Tell others that the project is open here, or the person that it is only shown."""
        if project.read_only_reason:
            text = f"{project.name} is only shown: {project.read_only_reason}."
            self._session.message.emit("warning", text)
        else:
            self._presence = SessionMarker(project.path)
            self._presence.create()

    def leave(self) -> None:
        """Tell others that the project is not open here any longer."""
        if self._presence is not None:
            self._presence.remove()
            self._presence = None

    def _ask_whose_it_is(self, found: Found) -> None:
        """Ask before a project that came from elsewhere reads scans from outside its folder."""
        session, project = self._session, found.project
        if not found.folders:
            self._ask_who_works(found)
            return
        text = strangers_folders(project, found.folders)
        if not len(session.asked):
            session.message.emit("warning", text)
            self._ask_who_works(found)
            return

        def accept() -> None:
            session.background.run(
                lambda: trust(project.path), lambda _: self._ask_who_works(found), session.tell
            )

        session.asked.emit(
            Question(
                "A project from elsewhere",
                f"{text}\n\nThey are read when a case is shown. Open it when you know where it "
                "comes from, and that these are its scans.",
                (("Open", accept),),
            )
        )

    def _ask_who_works(self, found: Found) -> None:
        """Ask whether only to look at a project that somebody else has open."""
        session, project = self._session, found.project
        own = self._presence is not None and self._presence.belongs_to(project.path)
        if own or project.read_only_reason or not found.others:
            session.opened(project)
            return
        whom = "; ".join(str(holder) for holder in found.others[:MOST_NAMED])
        text = f"{project.name} is open already: {whom}."
        if not len(session.asked):
            session.opened(project)
            session.message.emit("warning", f"{text} What both of you draw is merged.")
            return
        look = functools.partial(self.open, project.path, read_only=True)
        session.asked.emit(
            Question(
                "Project in use",
                f"{text}\n\nYou can look at it without changing anything. Work on it too only when "
                "you agree who labels which case; what both draw in one case is merged.",
                (
                    ("Only look", look),
                    ("Work on it too", functools.partial(session.opened, project)),
                ),
            )
        )


def strangers_folders(project: Project, folders: Sequence[Path]) -> str:
    """Say of a project that came from elsewhere where it reads from."""
    named = ", ".join(map(str, folders[:MOST_NAMED]))
    more = f" and {len(folders) - MOST_NAMED} more" if len(folders) > MOST_NAMED else ""
    return (
        f"{project.name} was not made by you on this computer, and reads scans from outside its "
        f"folder: {named}{more}."
    )
