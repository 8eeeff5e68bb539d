"""Changes to the cases and structures of the open project: rename, remove, restore, delete.

Removing a case or deleting a structure changes labels on the disk. Both are refused while a
training, a prediction or an export reads them, and while another session has the project open,
since that session would write its own copy of a label later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from napari_dycon.application import engine_process
from napari_dycon.application.cases.service import CaseService
from napari_dycon.application.import_export import ImportExport
from napari_dycon.application.review import Review
from napari_dycon.application.state import AppState
from napari_dycon.application.task_runner import TaskRunner
from napari_dycon.core.heartbeat import ProcessIdentity
from napari_dycon.core.types import ItemProgressCallback
from napari_dycon.errors import BusyError, UserError
from napari_dycon.project.editing.removed_cases import RemovedCase
from napari_dycon.project.editing.structures import DeletedStructure
from napari_dycon.project.models import Case
from napari_dycon.project.open_sessions import list_open_sessions
from napari_dycon.project.store import Project

T = TypeVar("T")


class ProjectEditor:
    """Changes cases and structures of the open project; results are reported as messages."""

    def __init__(
        self,
        state: AppState,
        task_runner: TaskRunner,
        case_service: CaseService,
        review: Review,
        import_export: ImportExport,
    ) -> None:
        self._state = state
        self._task_runner = task_runner
        self._case_service = case_service
        self._review = review
        self._import_export = import_export

    def edit_blocked_reason(self) -> str:
        """Return why cases and structures cannot be removed now; empty if they can."""
        if self._case_service.blocked_reason:
            return f"{self._case_service.blocked_reason.lower()} is not finished"
        if self._state.project is None:
            return "open a project first"
        if self._state.project.read_only_reason:
            return self._state.project.read_only_reason
        if self._state.run_status.phase != "idle":
            return "training is running"
        if self._review.is_predicting:
            return "a prediction is running"
        return "an export is running" if self._import_export.is_exporting else ""

    def rename_case(self, case_id: str, name: str) -> None:
        """Set the name that is shown for a case; see ``Project.rename_case``."""
        project = self._state.require_project()
        project.rename_case(case_id, name)
        if self._state.case is not None and self._state.case.id == case_id:
            self._state.case.name = project.get_case(case_id).name
        self._state.cases_changed.emit()

    def remove_case(self, case_id: str) -> None:
        """Remove a case; its label and predictions are kept in ``removed/``.

        Its label is saved first. If the case is shown, none is shown afterwards.
        """
        project = self._require_editable()
        name = project.get_case(case_id).display_name
        was_shown = self._state.case is not None and self._state.case.id == case_id
        if was_shown:
            self._case_service.hide()
        else:
            self._case_service.drop_request()  # it may be the case that is being read

        def remove(_: ItemProgressCallback) -> RemovedCase:
            check_no_other_user(project)
            return project.removed_cases.remove(case_id)

        def on_done(_: RemovedCase) -> None:
            self._finish()
            self._state.message.emit(
                "info",
                f"{name} was removed from the project. Its label was kept: "
                "Add… > Restore removed case… brings it back.",
            )

        self._start("Removing a case", remove, on_done, case_id if was_shown else "")

    def restore_case(self, case_id: str) -> None:
        """Add a removed case again, with its label and predictions."""
        project = self._require_editable()

        def restore(_: ItemProgressCallback) -> Case:
            check_no_other_user(project)
            return project.removed_cases.restore(case_id)

        def on_done(case: Case) -> None:
            self._finish()
            self._state.message.emit("info", f"{case.display_name} is in the project again.")

        self._start("Restoring a case", restore, on_done, "")

    def count_labels(self, value: int, on_done: Callable[[int], None]) -> None:
        """Count the labels that contain a structure and call ``on_done`` with their number."""
        project = self._require_editable()
        if len(project.classes) == 1:
            raise UserError("A project needs at least one structure. Add another one first.")
        self._case_service.save_label()

        def finish(count: int) -> None:
            if self._state.project is project:  # else the number is of another project
                on_done(count)

        self._task_runner.submit_with_progress(
            "Counting labels",
            lambda progress: project.structures.count_labels(value, progress),
            finish,
            self._state.report_error,
        )

    def delete_structure(self, value: int) -> None:
        """Delete a structure: its voxels become unannotated in all labels, which are copied first.

        The active case is read again afterwards, without its undo history, which contains the
        deleted structure.
        """
        project = self._require_editable()
        case_id = self._state.case.id if self._state.case is not None else ""
        self._case_service.hide()

        def delete(progress: ItemProgressCallback) -> DeletedStructure:
            check_no_other_user(project)
            return project.structures.delete(value, progress)

        def on_done(deleted: DeletedStructure) -> None:
            self._finish(case_id)
            text = f'The structure "{deleted.info.name}" was deleted'
            if deleted.n_labels:
                copies = deleted.folder / "labels"
                text += f"; its voxels are unannotated now. Copies of the labels are in {copies}"
            self._state.message.emit("info", f"{text}.")

        self._start("Deleting a structure", delete, on_done, case_id)

    def _start(
        self,
        title: str,
        task: Callable[[ItemProgressCallback], T],
        on_done: Callable[[T], None],
        shown_case: str,
    ) -> None:
        """Run a change in the background; meanwhile no case can be shown."""
        self._case_service.blocked_reason = title
        project = self._state.project

        def on_error(error: Exception) -> None:
            if self._state.project is project:
                self._finish(shown_case)
            self._state.report_error(error)

        def finish(result: T) -> None:
            if self._state.project is project:
                on_done(result)

        self._task_runner.submit_with_progress(title, task, finish, on_error)

    def _finish(self, shown_case: str = "") -> None:
        self._case_service.blocked_reason = ""
        self._state.cases_changed.emit()
        if shown_case and self._state.case is None:
            self._case_service.show(shown_case)

    def _require_editable(self) -> Project:
        project = self._state.require_project()
        project.require_writable()
        if reason := self.edit_blocked_reason():
            raise BusyError(f"This is not possible now: {reason}. Try again when it has finished.")
        return project


def check_no_other_user(project: Project) -> None:
    """Raise ``BusyError`` if another session has the project open, or a run trains on it."""
    own = ProcessIdentity.current()
    others = [session for session in list_open_sessions(project.path) if session.identity != own]
    if others:
        raise BusyError(
            f"{project.name} is also open in another session: {others[0]}. Close it there, then "
            "try again. Nothing was changed."
        )
    for run in project.runs.list():
        if engine_process.is_running(run):
            raise BusyError(
                f"Run {run.id} is training on this project{engine_process.remote_host(run)}. Stop "
                "it, or wait until it has finished. Nothing was changed."
            )
