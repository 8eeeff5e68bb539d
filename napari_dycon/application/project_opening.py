"""Opening a project: whose it is, who else has it open, and whether it is only looked at."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_dycon.application.prompts import UserPrompt
from napari_dycon.core.cleanup import clean_project
from napari_dycon.project.open_sessions import OpenSession, SessionMarker, list_open_sessions
from napari_dycon.project.store import Project
from napari_dycon.project.trusted_projects import is_trusted, trust

if TYPE_CHECKING:
    from napari_dycon.session import Session

MAX_NAMED = 3
READ_ONLY_REASON = "you opened it only to look"


@dataclass(frozen=True)
class OpenRequest:
    """A project, who else has it open, and where a stranger's reads from outside its folder."""

    project: Project
    other_sessions: list[OpenSession]
    external_folders: list[Path]


class ProjectOpener:
    """Opens projects for a session, and tells others that it has one open."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._marker: SessionMarker | None = None

    def open(self, path: Path | str, *, read_only: bool) -> None:
        """Open a project; see ``Session.open_project``."""

        def read_project() -> OpenRequest:
            project = Project.open(path, read_only_reason=READ_ONLY_REASON if read_only else None)
            if not project.read_only_reason:
                clean_project(project.path)
            external_folders = [] if is_trusted(project.path) else project.external_folders()
            return OpenRequest(
                project,
                list_open_sessions(project.path, remove_stale=not project.read_only_reason),
                external_folders,
            )

        self._session.task_runner.submit(
            read_project, self._confirm_untrusted, self._session.report_error
        )

    def register(self, project: Project) -> None:
        """Tell others that the project is open here, or the person that it is only shown."""
        if project.read_only_reason:
            text = f"{project.name} is only shown: {project.read_only_reason}."
            self._session.message.emit("warning", text)
        else:
            self._marker = SessionMarker(project.path)
            self._marker.create()

    def unregister(self) -> None:
        """Tell others that the project is not open here any longer."""
        if self._marker is not None:
            self._marker.remove()
            self._marker = None

    def _confirm_untrusted(self, request: OpenRequest) -> None:
        """Ask before a project that came from elsewhere reads scans from outside its folder."""
        session, project = self._session, request.project
        if not request.external_folders:
            self._confirm_shared(request)
            return
        text = external_folders_message(project, request.external_folders)
        if not len(session.prompt_requested):
            session.message.emit("warning", text)
            self._confirm_shared(request)
            return

        def accept() -> None:
            session.task_runner.submit(
                lambda: trust(project.path),
                lambda _: self._confirm_shared(request),
                session.report_error,
            )

        session.prompt_requested.emit(
            UserPrompt(
                "A project from elsewhere",
                f"{text}\n\nThey are read when a case is shown. Open it when you know where it "
                "comes from, and that these are its scans.",
                (("Open", accept),),
            )
        )

    def _confirm_shared(self, request: OpenRequest) -> None:
        """Ask whether only to look at a project that somebody else has open."""
        session, project = self._session, request.project
        is_open_here = self._marker is not None and self._marker.belongs_to(project.path)
        if is_open_here or project.read_only_reason or not request.other_sessions:
            session.set_project(project)
            return
        open_sessions = "; ".join(
            str(open_session) for open_session in request.other_sessions[:MAX_NAMED]
        )
        text = f"{project.name} is open already: {open_sessions}."
        if not len(session.prompt_requested):
            session.set_project(project)
            session.message.emit("warning", f"{text} What both of you draw is merged.")
            return
        open_read_only = functools.partial(self.open, project.path, read_only=True)
        session.prompt_requested.emit(
            UserPrompt(
                "Project in use",
                f"{text}\n\nYou can look at it without changing anything. Work on it too only when "
                "you agree who labels which case; what both draw in one case is merged.",
                (
                    ("Only look", open_read_only),
                    ("Work on it too", functools.partial(session.set_project, project)),
                ),
            )
        )


def external_folders_message(project: Project, folders: Sequence[Path]) -> str:
    """Say of a project that came from elsewhere where it reads from."""
    names = ", ".join(map(str, folders[:MAX_NAMED]))
    more = f" and {len(folders) - MAX_NAMED} more" if len(folders) > MAX_NAMED else ""
    return (
        f"{project.name} was not made by you on this computer, and reads scans from outside its "
        f"folder: {names}{more}."
    )
