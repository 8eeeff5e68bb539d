"""The whole application without a window: every button is one method here.

A :class:`Session` holds one project, the case being looked at and the run at work, and says through
psygnal events what changed. It knows no Qt and imports no torch; scripts drive it as it is, the
dock widget gives it a background that never blocks the window.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_dycon.annotation.regions import Box, bounding_box
from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.active_learning import Suggester, Suggestion, read_case_score
from napari_dycon.application.annotation_tools import AnnotationTools
from napari_dycon.application.case_cache import CaseCache
from napari_dycon.application.import_export import ImportExport
from napari_dycon.application.label_autosave import LabelAutosaver
from napari_dycon.application.project_opening import ProjectOpener
from napari_dycon.application.prompts import UserPrompt
from napari_dycon.application.review import Review
from napari_dycon.application.run_controller import RunController
from napari_dycon.application.run_status import RunStatus
from napari_dycon.application.task_runner import InlineTaskRunner, TaskRunner
from napari_dycon.core.crash_report import describe_error
from napari_dycon.engine.config import TrainConfig
from napari_dycon.errors import DyconError, UserError
from napari_dycon.project.importing.discovery import Scan
from napari_dycon.project.models import UNANNOTATED, Status
from napari_dycon.project.store import Project

Array = npt.NDArray[Any]
Event = dict[str, Any]
Level = Literal["info", "warning", "error"]


class Session:
    """One project, one case in view, at most one run at work."""

    project_changed = Signal(object)  # Project | None
    cases_changed = Signal()  # list, status, classes or scores
    case_shown = Signal(object)  # CaseView | None
    label_saved = Signal(str)  # case id
    label_edited = Signal(str)  # case id; changed by a command, not by the brush
    prediction_changed = Signal(object)  # CaseView, after a preview or a prediction
    run_changed = Signal(object)  # RunStatus
    event = Signal(dict)  # every event of the engine
    runs_changed = Signal()
    hotspot_visited = Signal(int)  # number of the uncertain place that is gone to
    message = Signal(str, str)  # level, text for the person
    prompt_requested = Signal(object)  # Question that only a person can answer

    def __init__(self, task_runner: TaskRunner | None = None) -> None:
        self.task_runner: TaskRunner = task_runner or InlineTaskRunner()
        self.project: Project | None = None
        self.case: ActiveCase | None = None
        self.project_opener = ProjectOpener(self)
        self.run_controller = RunController(self)
        self.review = Review(self)
        self.annotation = AnnotationTools(self)
        self.import_export = ImportExport(self)
        self.suggester = Suggester()  # of the open project, as the next one
        self._cache = CaseCache()
        # Replaced by a window so that edits become one step of the layer's own undo history.
        self.label_writer: Callable[[Box, Array], None] | None = None
        self._generation = 0
        self._autosaver = LabelAutosaver(self.task_runner, self._on_label_saved, self.report_error)
        # What ends following an engine process, and whether that has ended by itself.
        self._process_followers: list[tuple[Callable[[], None], threading.Event]] = []

    # ---- Data ------------------------------------------------------------------------------

    def create_project(
        self,
        path: Path | str,
        images: Path | str,
        labels: Path | str | None = None,
        classes: Sequence[str] | None = None,
        channels: Sequence[str] | None = None,
        *,
        scans: Sequence[Scan] | None = None,
        resample: bool = False,
    ) -> None:
        """Make a project from a folder of scans and open it; see ``create_project``.

        Scans that cannot be used are left out, which is told; of uneven slices is asked.
        """
        self.import_export.create(
            path, images, labels, classes, channels, scans=scans, resample=resample
        )

    def open_project(self, path: Path | str, *, read_only: bool = False) -> None:
        """Open a project folder; a run that is still at work is attached again.

        When somebody else has it open, a person is asked whether only to look; without anybody to
        ask it is opened with a warning, since the work of both is merged.

        Parameters
        ----------
        read_only : look at it and change nothing
        """
        self.project_opener.open(path, read_only=read_only)

    def add_cases(self, images: Sequence[Path | str], *, resample: bool = False) -> None:
        """Add scans to the open project, without labels: files, or folders of scans.

        Of several channels, files and folders have to tell by their names which is which; see
        ``channels.scans_for``.
        """
        self.import_export.add_paths(images, resample=resample)

    def add_scans(self, scans: Sequence[Scan]) -> None:
        """Add scans whose channels a person put together, without labels."""
        self.import_export.add_scans(scans)

    def export(self, format_: str, out: Path | str, **options: Any) -> None:
        """Write masks, a data set, the network or a report; see ``exports.export.export``.

        One export at a time: a second one raises ``BusyError``.
        """
        self.import_export.export(format_, out, **options)

    def close_project(self) -> None:
        """Save what was drawn and close; a run at work goes on by itself."""
        self.flush()
        self._generation += 1
        for stop_following, _ in self._process_followers:
            stop_following()
        self._process_followers.clear()
        self.review.is_predicting = False
        self.project, self.case = None, None
        self.suggester, self._cache = Suggester(), CaseCache()
        self.project_opener.unregister()
        self.message.emit("info", "")  # what was said of another project
        self.run_controller.detach()
        self.case_shown.emit(None)
        self.project_changed.emit(None)

    def set_project(self, project: Project) -> None:
        """Take over a project that was opened or made elsewhere."""
        try:
            self.close_project()
        except DyconError as error:  # told; a drive that is gone must not hold a person back
            if not len(self.prompt_requested):
                raise

            def recover_and_continue() -> None:
                self.save_recovery_copy()
                self.set_project(project)

            self.prompt_requested.emit(
                UserPrompt(
                    "A label is not saved",
                    f"{error}\n\nIt can be kept in your home folder, to be put back later.",
                    (("Keep it there and go on", recover_and_continue),),
                )
            )
            return
        self.project = project
        self.project_opener.register(project)
        self.project_changed.emit(project)
        self.cases_changed.emit()
        self.run_controller.attach()

    # ---- Annotate --------------------------------------------------------------------------

    def show_case(self, case_id: str) -> None:
        """Load a case and make it the one in view; what was drawn before is saved first."""
        project = self.require_project()
        project.get_case(case_id)  # an unknown name is refused before anything changes
        self.flush()
        self._generation += 1
        generation = self._generation
        self.message.emit("info", "")  # what was said of another case

        def on_done(case: ActiveCase) -> None:
            # A later click wins over a slower earlier one.
            if generation != self._generation:
                return
            old = self.case
            try:
                self.flush()  # strokes of the moment while the case was being read
            except DyconError:
                self.cases_changed.emit()  # the old case stays in view, and in the list
                return
            if old is not None and old.id == case.id:  # newer than what was just read
                case.label, case.saved_label, case.label_version = (
                    old.label,
                    old.saved_label,
                    old.label_version,
                )
                case.save_count, case.remote_label = old.save_count, old.remote_label
            self.case = case
            self.label_writer = None
            self.run_controller.request_preview()
            self.case_shown.emit(case)
            self.import_export.report_notes(case.notes)

        def on_error(error: Exception) -> None:
            self.report_error(error)
            self.cases_changed.emit()  # the list goes back to the case in view

        cache = self._cache
        self.task_runner.submit(lambda: cache.load(project, case_id), on_done, on_error)

    def preload_cases(self, case_ids: Sequence[str]) -> None:
        """Read cases that may be shown next, one after the other, so that showing them is quick.

        Ends when another case is shown meanwhile; nothing is told of what cannot be read.
        """
        project, cache, generation = self.project, self._cache, self._generation
        if project is None or not case_ids:
            return
        if self.case is not None and not cache.has_room_for(self.case):
            return  # others of the project are as large: they would be read in vain
        first, *rest = case_ids

        def preload_rest(_: object) -> None:
            if generation == self._generation:
                self.preload_cases(rest)

        self.task_runner.submit(lambda: cache.load(project, first), preload_rest, preload_rest)

    def save_label(self) -> None:
        """Save the label in view when it changed, off the caller's thread where there is one."""
        if self.case is not None and self.project is not None and not self.project.read_only_reason:
            self._autosaver.save(self.project, self.case)

    def flush(self) -> None:
        """Save the label in view before returning; when that fails, nothing is dropped."""
        if self.case is not None and self.project is not None and not self.project.read_only_reason:
            try:
                self._autosaver.flush(self.project, self.case)
            except DyconError as error:
                self._autosaver.has_failed = True
                self.report_error(error)
                raise

    def save_recovery_copy(self) -> None:
        """Keep a label that cannot be saved in the person's home folder, and say where."""
        if self.case is None or self.project is None or not self.case.has_unsaved_changes:
            return
        path = self._autosaver.write_recovery_copy(self.case)
        self.case.saved_label, self.case.remote_label = self.case.label.copy(), None
        self.message.emit("warning", f"The label of {self.case.id} was kept in {path}.")

    def _on_label_saved(self, case: ActiveCase, merged: bool) -> None:
        if merged:
            self.label_edited.emit(case.id)
            self.message.emit(
                "warning",
                f"The label of {case.id} was changed in another window too; the work of both is "
                "kept.",
            )
        if self._autosaver.has_failed:  # the person was told, and wonders
            self._autosaver.has_failed = False
            self.message.emit("info", f"The label of {case.id} is saved now; nothing was lost.")
        self.label_saved.emit(case.id)
        self.cases_changed.emit()

    def set_label(self, new: npt.NDArray[np.uint8]) -> int:
        """Replace the label in view as one undoable step; returns how many voxels changed."""
        case = self.require_case()
        if new.shape != case.label.shape:
            raise UserError(
                f"The new label has the shape {new.shape}, the scan has {case.label.shape}."
            )
        box = bounding_box(case.label != new)
        return 0 if box is None else self.write_label(box, new[box])

    def write_label(self, box: Box, values: Array) -> int:
        """Write a box of the label in view as one undoable step; returns how many voxels changed.

        Parameters
        ----------
        box : three slices of the label
        values : what the box holds afterwards
        """
        case = self.require_case()
        self.require_project().require_writable()
        n_changed = int(np.count_nonzero(case.label[box] != values))
        if n_changed:
            if self.label_writer is None:
                case.label[box] = values
            else:
                self.label_writer(box, values)
            self.label_edited.emit(case.id)
        return n_changed

    def fill_background(self, slice_index: int | None = None, axis: int = 0) -> int:
        """Declare what is not annotated to be background, in one slice or everywhere."""
        case = self.require_case()
        new = case.label.copy()
        selection: tuple[Any, ...] = (slice(None),) * 3
        if slice_index is not None:
            selection = tuple(slice_index if a == axis else slice(None) for a in range(3))
        part = new[selection]
        new[selection] = np.where(part == UNANNOTATED, 0, part)
        return self.set_label(new)

    def set_case_status(self, case_id: str, status: Status) -> None:
        """Set a case's status; "labeled" and "reviewed" make the rest of it background."""
        project = self.require_project()
        if status in (Status.LABELED, Status.REVIEWED):
            if self.case is None or self.case.id != case_id:
                raise UserError(f"Show case {case_id} first, then mark it as {status}.")
            if not np.any((self.case.label != UNANNOTATED) & (self.case.label != 0)):
                raise UserError(
                    f"Case {case_id} has no annotation yet. Paint a structure first, or accept a "
                    "prediction; then mark it."
                )
            self.fill_background()
            self.flush()
        project.set_status(case_id, status)
        self.cases_changed.emit()

    # ---- Train -----------------------------------------------------------------------------

    @property
    def status(self) -> RunStatus:
        """How the run at work stands."""
        return self.run_controller.status

    def start_training(self, config: TrainConfig | None = None, **changes: Any) -> str:
        """Start a run in a process of its own and return its id.

        Parameters
        ----------
        config : settings; by default the preset "default" of DyCON
        **changes : single settings to replace, such as ``time_limit=300``
        """
        return self.run_controller.start(config, **changes)

    def pause(self) -> None:
        """Ask the run to wait after its current step."""
        self.run_controller.send_command("pause")

    def resume(self) -> None:
        """Let a paused run go on."""
        self.run_controller.send_command("run")

    def stop(self) -> None:
        """Ask the run to save its weights and end."""
        self.run_controller.send_command("stop")

    def wait(self, timeout_s: float | None = None) -> None:
        """Block until no run and no prediction is at work (for scripts; never in a window)."""
        self.run_controller.wait(timeout_s)

    def list_run_ids(self) -> list[str]:
        """Ids of the open project's runs, the oldest first."""
        return [run.id for run in self.project.runs.list()] if self.project is not None else []

    # ---- Review ----------------------------------------------------------------------------

    def predict(self, ids: Sequence[str], run: str | None = None) -> None:
        """Predict cases with a run's weights (the newest by default), in an engine process."""
        self.review.predict(ids, run)

    def refresh_prediction(self, case_id: str) -> None:
        """Read the newest prediction of the case in view again."""
        self.review.refresh(case_id)

    def accept_prediction(
        self,
        classes: Sequence[int] | None = None,
        *,
        slice_: tuple[int, int] | None = None,
        component: tuple[int, int, int] | None = None,
    ) -> int:
        """Make the prediction in view the label, as one undoable step.

        Parameters
        ----------
        classes : structures to take over; all of them, and the background, by default
        slice_ : ``(axis, index)`` of the only slice to take over
        component : voxel ``(d, h, w)`` in the connected piece to take over, and nothing else

        Returns
        -------
        How many voxels changed. A whole prediction makes the case count as labeled.
        """
        return self.review.accept(classes, slice_, component)

    def suggest_next(self) -> list[str]:
        """Cases without a label, the one most worth labeling first."""
        return [suggestion.case for suggestion in self.list_suggestions()]

    def list_suggestions(self) -> list[Suggestion]:
        """As ``suggest_next``, with scores and reasons."""
        return self.suggester.suggest(self.require_project())

    def get_case_score(self, case_id: str) -> float | None:
        """How unsure the newest prediction of a case is; ``None`` while there is none."""
        return read_case_score(self.require_project(), case_id)

    def next_uncertain(self) -> tuple[float, float, float] | None:
        """Center of the next uncertain place of the case in view, ``(z, y, x)`` in mm.

        Places are connected regions of high uncertainty, the heaviest first; those that were
        looked at are left out until all were. ``None`` when nothing is uncertain or predicted.
        """
        return self.review.step_hotspot(1)

    def previous_uncertain(self) -> tuple[float, float, float] | None:
        """Center of the uncertain place before, as ``next_uncertain``."""
        return self.review.step_hotspot(-1)

    # ---- Helpers ---------------------------------------------------------------------------

    def require_project(self) -> Project:
        if self.project is None:
            raise UserError("No project is open. Open one, or make one from a folder of scans.")
        return self.project

    def require_case(self) -> ActiveCase:
        if self.case is None:
            raise UserError("No case is shown. Choose one in the list of cases first.")
        return self.case

    def edit_blocked_reason(self) -> str:
        """Why nothing can be drawn just now, to stand beside a button; empty when it can."""
        if self.project is None or self.case is None:
            return "choose a case in the list first"
        return self.project.read_only_reason or ""

    def follow_process(
        self, title: str, events: Iterator[Event], on_event: Callable[[Event], None]
    ) -> None:
        """Follow an engine process until it ends or the project is closed."""
        ended = threading.Event()

        def relay_events() -> Iterator[Event]:
            try:
                yield from events
            finally:
                ended.set()

        self._process_followers = [
            (stop_following, has_ended)
            for stop_following, has_ended in self._process_followers
            if not has_ended.is_set()
        ]
        self._process_followers.append(
            (self.task_runner.stream(title, relay_events(), on_event), ended)
        )

    def report_error(self, error: Exception) -> None:
        self.message.emit("error", describe_error(error))
