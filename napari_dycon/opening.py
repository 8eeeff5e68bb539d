"""Opening a project: somebody else may have it, or it may only be there to be looked at."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from napari_dycon.project.presence import Holder, Presence, holders
from napari_dycon.project.store import Project
from napari_dycon.questions import Question

if TYPE_CHECKING:
    from napari_dycon.session import Session

MOST_NAMED = 3
ONLY_LOOK = "you opened it only to look"


class Opening:
    """Opens projects for a session, and tells others that it has one open."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._presence: Presence | None = None

    def open(self, path: Path | str, *, read_only: bool) -> None:
        """Open a project; see ``Session.open_project``."""

        def work() -> tuple[Project, list[Holder]]:
            project = Project.open(path, read_only=ONLY_LOOK if read_only else "")
            return project, holders(project.path)

        def done(found: tuple[Project, list[Holder]]) -> None:
            project, others = found
            own = self._presence is not None and self._presence.is_of(project.path)
            if own or project.read_only or not others:
                self._session.opened(project)
            else:
                self._ask_who_works(project, others)

        self._session.background.run(work, done, self._session.tell)

    def enter(self, project: Project) -> None:
        """Tell others that the project is open here, or the person that it is only shown."""
        if project.read_only:
            text = f"{project.name} is only shown: {project.read_only}."
            self._session.message.emit("warning", text)
        else:
            self._presence = Presence(project.path)
            self._presence.enter()

    def leave(self) -> None:
        """Tell others that the project is not open here any longer."""
        if self._presence is not None:
            self._presence.leave()
            self._presence = None

    def _ask_who_works(self, project: Project, others: list[Holder]) -> None:
        session = self._session
        whom = "; ".join(str(holder) for holder in others[:MOST_NAMED])
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
