"""Opening of projects: trust, other open sessions, read-only access."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_dycon.application.labels.autosave import LabelAutosaver
from napari_dycon.application.prompts import UserPrompt
from napari_dycon.application.state import AppState
from napari_dycon.application.task_runner import TaskRunner
from napari_dycon.application.training.controller import RunController
from napari_dycon.core.cleanup import clean_project
from napari_dycon.errors import DyconError
from napari_dycon.project.known_copies import reads_only_known_scans
from napari_dycon.project.open_sessions import OpenSession, SessionMarker, list_open_sessions
from napari_dycon.project.store import Project
from napari_dycon.project.trusted_projects import is_trusted, trust

MAX_NAMED = 3
READ_ONLY_REASON = "it was opened for viewing only"


@dataclass(frozen=True)
class OpenRequest:
    """A project, other sessions that have it open, and external folders of an untrusted one."""

    project: Project
    other_sessions: list[OpenSession]
    external_folders: list[Path]


class ProjectOpener:
    """Opens and closes projects, and maintains the session marker."""

    def __init__(
        self,
        state: AppState,
        task_runner: TaskRunner,
        autosaver: LabelAutosaver,
        run_controller: RunController,
    ) -> None:
        self._state = state
        self._task_runner = task_runner
        self._autosaver = autosaver
        self._run_controller = run_controller
        self._marker: SessionMarker | None = None
        self._request = 0  # number of the newest request to open a project

    def open(self, path: Path | str, *, read_only: bool) -> None:
        """Open a project; see ``Session.open_project``."""

        def read_project() -> OpenRequest:
            project = Project.open(path, read_only_reason=READ_ONLY_REASON if read_only else None)
            if not project.read_only_reason:
                clean_project(project.path)
            external_folders = list_untrusted_folders(project)
            return OpenRequest(
                project,
                list_open_sessions(project.path, remove_stale=not project.read_only_reason),
                external_folders,
            )

        self._request += 1
        request = self._request  # an earlier one may end later

        def on_done(read: OpenRequest) -> None:
            if request == self._request:
                self._confirm_untrusted(read)

        self._task_runner.submit(read_project, on_done, self._state.report_error)

    def set_project(self, project: Project) -> None:
        """Close the open project and use one that is already loaded."""
        state = self._state
        try:
            self.close()
        except DyconError as error:  # reported; a disconnected drive must not block the user
            if not state.can_prompt:
                raise

            def recover_and_continue() -> None:
                self._autosaver.save_recovery_copy()
                self.set_project(project)

            state.prompt_requested.emit(
                UserPrompt(
                    "Label could not be saved",
                    f"{error}\n\nA recovery copy can be saved in your home folder.",
                    (("Save a recovery copy and continue", recover_and_continue),),
                )
            )
            return
        state.project = project
        self.register(project)
        state.project_changed.emit(project)
        state.cases_changed.emit()
        self._run_controller.attach()

    def close(self) -> None:
        """Save the label and close the project; see ``Session.close_project``."""
        state = self._state
        self._autosaver.flush()
        state.project = state.case = None
        state.project_closed.emit()
        self.unregister()
        state.message.emit("info", "")  # clears messages about another project
        state.case_shown.emit(None)
        state.project_changed.emit(None)

    def register(self, project: Project) -> None:
        """Create the session marker, or notify the user that the project is read-only."""
        if project.read_only_reason:
            text = f"{project.name} is read-only: {project.read_only_reason}."
            self._state.message.emit("warning", text)
        else:
            self._marker = SessionMarker(project.path)
            self._marker.create()

    def unregister(self) -> None:
        """Remove the session marker."""
        if self._marker is not None:
            self._marker.remove()
            self._marker = None

    def _confirm_untrusted(self, request: OpenRequest) -> None:
        """Ask before an untrusted project reads scans from outside its folder."""
        state, project = self._state, request.project
        if not request.external_folders:
            self._confirm_shared(request)
            return
        text = external_folders_message(project, request.external_folders)
        if not state.can_prompt:
            state.message.emit("warning", text)
            self._confirm_shared(request)
            return

        def accept() -> None:
            self._task_runner.submit(
                lambda: trust(project.path),
                lambda _: self._confirm_shared(request),
                state.report_error,
            )

        state.prompt_requested.emit(
            UserPrompt(
                "Untrusted project",
                f"{text}\n\nOpen it only if you trust its source.",
                (("Open", accept),),
            )
        )

    def _confirm_shared(self, request: OpenRequest) -> None:
        """Ask whether to open a project read-only that is open in another session."""
        state, project = self._state, request.project
        is_open_here = self._marker is not None and self._marker.belongs_to(project.path)
        if is_open_here or project.read_only_reason or not request.other_sessions:
            self.set_project(project)
            return
        open_sessions = "; ".join(
            str(open_session) for open_session in request.other_sessions[:MAX_NAMED]
        )
        text = f"{project.name} is already open: {open_sessions}."
        if not state.can_prompt:
            self.set_project(project)
            state.message.emit("warning", f"{text} Edits from both sessions are merged.")
            return
        open_read_only = functools.partial(self.open, project.path, read_only=True)
        state.prompt_requested.emit(
            UserPrompt(
                "Project in use",
                f"{text}\n\nYou can open it read-only. Open it for editing only if you have "
                "agreed who labels which case; edits of the same case are merged.",
                (
                    ("Open read-only", open_read_only),
                    ("Open for editing", functools.partial(self.set_project, project)),
                ),
            )
        )


def list_untrusted_folders(project: Project) -> list[Path]:
    """List the external folders of a project that the user has not agreed to read.

    A copy of a trusted project is trusted, too.
    """
    if is_trusted(project.path) or not (folders := project.external_folders()):
        return []
    if reads_only_known_scans(project.path, project.cases):
        trust(project.path)
        return []
    return folders


def external_folders_message(project: Project, folders: Sequence[Path]) -> str:
    """Describe the external folders of an untrusted project."""
    names = ", ".join(map(str, folders[:MAX_NAMED]))
    more = f" and {len(folders) - MAX_NAMED} more" if len(folders) > MAX_NAMED else ""
    return (
        f"{project.name} comes from another computer or user, or was copied, and will read scans "
        f"from: {names}{more}."
    )
