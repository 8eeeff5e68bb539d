"""State shared by all services, and signals for its changes.

Services read and set it and connect to each other's signals; none depends on the session that
composes them. It needs neither Qt nor torch.
"""

from __future__ import annotations

from psygnal import EmitLoopError, Signal

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.training.status import RunStatus
from napari_dycon.core.crash_report import describe_error
from napari_dycon.errors import UserError
from napari_dycon.project.store import Project


class AppState:
    """One project, one active case, at most one run.

    Services set ``project`` and ``case`` and emit the signals once their own part is done.
    """

    project_changed = Signal(object)  # Project | None
    project_closed = Signal()  # services release what belongs to it; before project_changed(None)
    cases_changed = Signal()  # list, status, classes or scores
    case_shown = Signal(object)  # ActiveCase | None
    label_saved = Signal(str)  # case id
    label_edited = Signal(str)  # case id; changed by a command, not by the brush
    edit_undone = Signal()  # a step of the label was undone or redone, in any view
    prediction_changed = Signal(object)  # ActiveCase, after a preview or a prediction
    run_changed = Signal(object)  # RunStatus
    event = Signal(object)  # Event; every event of the engine, of predictions, too
    run_event = Signal(object)  # Event of the run
    runs_changed = Signal()
    hotspots_changed = Signal()  # of the active case, after a change of the threshold
    hotspot_visited = Signal(int)  # index of the current uncertain region
    # Level and text for the user: "info", "result" (of a long task; it stays until it is replaced),
    # "warning" or "error".
    message = Signal(str, str)
    # Text for the user about an edit of the label, and a function that takes it back.
    undo_offered = Signal(str, object)
    prompt_requested = Signal(object)  # UserPrompt

    def __init__(self) -> None:
        self.project: Project | None = None
        self.case: ActiveCase | None = None
        self.run_status = RunStatus()

    def set_run_status(self, status: RunStatus) -> None:
        """Set the status of the run and emit it if it changed."""
        if status != self.run_status:
            self.run_status = status
            self.run_changed.emit(status)

    @property
    def can_prompt(self) -> bool:
        """Whether a window is connected that can show prompts."""
        return len(self.prompt_requested) > 0

    def require_project(self) -> Project:
        """Return the open project; raises ``UserError`` if there is none."""
        if self.project is None:
            raise UserError("No project is open. Open one, or create one from a folder of scans.")
        return self.project

    def require_case(self) -> ActiveCase:
        """Return the active case; raises ``UserError`` if there is none."""
        if self.case is None:
            raise UserError("No case is selected. Select one in the list of cases first.")
        return self.case

    def report_error(self, error: Exception) -> None:
        """Emit an error as a message; one that was raised by a slot is described as itself."""
        cause: BaseException = error
        while isinstance(cause, EmitLoopError) and cause.__cause__ is not None:
            cause = cause.__cause__
        self.message.emit("error", describe_error(cause))
