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
from napari_dycon.application.active_case import CaseView
from napari_dycon.application.active_learning import Suggester, Suggestion, case_score
from napari_dycon.application.annotation_tools import Annotating
from napari_dycon.application.case_cache import CaseCache
from napari_dycon.application.import_export import Transfers
from napari_dycon.application.label_autosave import LabelKeeper
from napari_dycon.application.project_opening import Opening
from napari_dycon.application.prompts import Question
from napari_dycon.application.review import Reviewing
from napari_dycon.application.run_controller import RunControl
from napari_dycon.application.run_status import RunStatus
from napari_dycon.application.task_runner import Background, PlainBackground
from napari_dycon.core.crash_report import describe_error
from napari_dycon.engine.config import TrainConfig
from napari_dycon.errors import DyconError, UserError
from napari_dycon.project.importing.discovery import Scan
from napari_dycon.project.models import UNANNOTATED
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
    place_visited = Signal(int)  # number of the uncertain place that is gone to
    message = Signal(str, str)  # level, text for the person
    asked = Signal(object)  # Question that only a person can answer

    def __init__(self, background: Background | None = None) -> None:
        self.background: Background = background or PlainBackground()
        self.project: Project | None = None
        self.view: CaseView | None = None
        self.opening = Opening(self)
        self.runs = RunControl(self)
        self.review = Reviewing(self)
        self.drawing = Annotating(self)
        self.transfers = Transfers(self)
        self.suggester = Suggester()  # of the open project, as the next one
        self._cache = CaseCache()
        # Replaced by a window so that edits become one step of the layer's own undo history.
        self.label_writer: Callable[[Box, Array], None] | None = None
        self._generation = 0
        self._keeper = LabelKeeper(self.background, self._label_written, self.tell)
        # What ends following an engine process, and whether that has ended by itself.
        self._unfollow: list[tuple[Callable[[], None], threading.Event]] = []

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
        self.transfers.create(
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
        self.opening.open(path, read_only=read_only)

    def add_cases(self, images: Sequence[Path | str], *, resample: bool = False) -> None:
        """Add scans to the open project, without labels: files, or folders of scans.

        Of several channels, files and folders have to tell by their names which is which; see
        ``channels.scans_for``.
        """
        self.transfers.add_paths(images, resample=resample)

    def add_scans(self, scans: Sequence[Scan]) -> None:
        """Add scans whose channels a person put together, without labels."""
        self.transfers.add_scans(scans)

    def export(self, format_: str, out: Path | str, **options: Any) -> None:
        """Write masks, a data set, the network or a report; see ``exports.export.export``.

        One export at a time: a second one raises ``BusyError``.
        """
        self.transfers.export(format_, out, **options)

    def close_project(self) -> None:
        """Save what was drawn and close; a run at work goes on by itself."""
        self.flush()
        self._generation += 1
        for end, _ in self._unfollow:
            end()
        self._unfollow.clear()
        self.review.predicting = False
        self.project, self.view = None, None
        self.suggester, self._cache = Suggester(), CaseCache()
        self.opening.leave()
        self.message.emit("info", "")  # what was said of another project
        self.runs.forget()
        self.case_shown.emit(None)
        self.project_changed.emit(None)

    def opened(self, project: Project) -> None:
        """Take over a project that was opened or made elsewhere."""
        try:
            self.close_project()
        except DyconError as error:  # told; a drive that is gone must not hold a person back
            if not len(self.asked):
                raise

            def go_on() -> None:
                self.rescue_label()
                self.opened(project)

            self.asked.emit(
                Question(
                    "A label is not saved",
                    f"{error}\n\nIt can be kept in your home folder, to be put back later.",
                    (("Keep it there and go on", go_on),),
                )
            )
            return
        self.project = project
        self.opening.enter(project)
        self.project_changed.emit(project)
        self.cases_changed.emit()
        self.runs.attach()

    # ---- Annotate --------------------------------------------------------------------------

    def show_case(self, case_id: str) -> None:
        """Load a case and make it the one in view; what was drawn before is saved first."""
        project = self.need_project()
        project.get_case(case_id)  # an unknown name is refused before anything changes
        self.flush()
        self._generation += 1
        generation = self._generation
        self.message.emit("info", "")  # what was said of another case

        def done(view: CaseView) -> None:
            # A later click wins over a slower earlier one.
            if generation != self._generation:
                return
            old = self.view
            try:
                self.flush()  # strokes of the moment while the case was being read
            except DyconError:
                self.cases_changed.emit()  # the old case stays in view, and in the list
                return
            if old is not None and old.id == view.id:  # newer than what was just read
                view.label, view.saved, view.stamp = old.label, old.saved, old.stamp
                view.saves, view.others = old.saves, old.others
            self.view = view
            self.label_writer = None
            self.runs.ask_preview()
            self.case_shown.emit(view)
            self.transfers.tell_notes(view.notes)

        def failed(error: Exception) -> None:
            self.tell(error)
            self.cases_changed.emit()  # the list goes back to the case in view

        cache = self._cache
        self.background.run(lambda: cache.load(project, case_id), done, failed)

    def read_ahead(self, case_ids: Sequence[str]) -> None:
        """Read cases that may be shown next, one after the other, so that showing them is quick.

        Ends when another case is shown meanwhile; nothing is told of what cannot be read.
        """
        project, cache, generation = self.project, self._cache, self._generation
        if project is None or not case_ids:
            return
        if self.view is not None and not cache.has_room_for(self.view):
            return  # others of the project are as large: they would be read in vain
        first, *rest = case_ids

        def next_one(_: object) -> None:
            if generation == self._generation:
                self.read_ahead(rest)

        self.background.run(lambda: cache.load(project, first), next_one, next_one)

    def save_label(self) -> None:
        """Save the label in view when it changed, off the caller's thread where there is one."""
        if self.view is not None and self.project is not None and not self.project.read_only_reason:
            self._keeper.save(self.project, self.view)

    def flush(self) -> None:
        """Save the label in view before returning; when that fails, nothing is dropped."""
        if self.view is not None and self.project is not None and not self.project.read_only_reason:
            try:
                self._keeper.flush(self.project, self.view)
            except DyconError as error:
                self._keeper.in_trouble = True
                self.tell(error)
                raise

    def rescue_label(self) -> None:
        """Keep a label that cannot be saved in the person's home folder, and say where."""
        if self.view is None or self.project is None or not self.view.unsaved:
            return
        path = self._keeper.rescue(self.view)
        self.view.saved, self.view.others = self.view.label.copy(), None
        self.message.emit("warning", f"The label of {self.view.id} was kept in {path}.")

    def _label_written(self, view: CaseView, merged: bool) -> None:
        if merged:
            self.label_edited.emit(view.id)
            self.message.emit(
                "warning",
                f"The label of {view.id} was changed in another window too; the work of both is "
                "kept.",
            )
        if self._keeper.in_trouble:  # the person was told, and wonders
            self._keeper.in_trouble = False
            self.message.emit("info", f"The label of {view.id} is saved now; nothing was lost.")
        self.label_saved.emit(view.id)
        self.cases_changed.emit()

    def set_label(self, new: npt.NDArray[np.uint8]) -> int:
        """Replace the label in view as one undoable step; returns how many voxels changed."""
        view = self.need_view()
        if new.shape != view.label.shape:
            raise UserError(
                f"The new label has the shape {new.shape}, the scan has {view.label.shape}."
            )
        box = bounding_box(view.label != new)
        return 0 if box is None else self.write_label(box, new[box])

    def write_label(self, box: Box, values: Array) -> int:
        """Write a box of the label in view as one undoable step; returns how many voxels changed.

        Parameters
        ----------
        box : three slices of the label
        values : what the box holds afterwards
        """
        view = self.need_view()
        self.need_project().require_writable()
        changed = int(np.count_nonzero(view.label[box] != values))
        if changed:
            if self.label_writer is None:
                view.label[box] = values
            else:
                self.label_writer(box, values)
            self.label_edited.emit(view.id)
        return changed

    def fill_background(self, slice_index: int | None = None, axis: int = 0) -> int:
        """Declare what is not annotated to be background, in one slice or everywhere."""
        view = self.need_view()
        new = view.label.copy()
        where: tuple[Any, ...] = (slice(None),) * 3
        if slice_index is not None:
            where = tuple(slice_index if a == axis else slice(None) for a in range(3))
        part = new[where]
        new[where] = np.where(part == UNANNOTATED, 0, part)
        return self.set_label(new)

    def set_case_status(self, case_id: str, status: str) -> None:
        """Set a case's status; "labeled" and "reviewed" make the rest of it background."""
        project = self.need_project()
        if status in ("labeled", "reviewed"):
            if self.view is None or self.view.id != case_id:
                raise UserError(f"Show case {case_id} first, then mark it as {status}.")
            if not np.any((self.view.label != UNANNOTATED) & (self.view.label != 0)):
                raise UserError(
                    f"Case {case_id} has no annotation yet. Paint a structure first, or accept a "
                    "prediction; then mark it."
                )
            self.fill_background()
            self.flush()
        project.set_status(case_id, status)  # type: ignore[arg-type]
        self.cases_changed.emit()

    # ---- Train -----------------------------------------------------------------------------

    @property
    def status(self) -> RunStatus:
        """How the run at work stands."""
        return self.runs.status

    def start_training(self, config: TrainConfig | None = None, **changes: Any) -> str:
        """Start a run in a process of its own and return its id.

        Parameters
        ----------
        config : settings; by default the preset "default" of DyCON
        **changes : single settings to replace, such as ``time_limit=300``
        """
        return self.runs.start(config, **changes)

    def pause(self) -> None:
        """Ask the run to wait after its current step."""
        self.runs.command("pause")

    def resume(self) -> None:
        """Let a paused run go on."""
        self.runs.command("run")

    def stop(self) -> None:
        """Ask the run to save its weights and end."""
        self.runs.command("stop")

    def wait(self, timeout: float | None = None) -> None:
        """Block until no run and no prediction is at work (for scripts; never in a window)."""
        self.runs.wait(timeout)

    def project_runs(self) -> list[str]:
        """Ids of the open project's runs, the oldest first."""
        return [run.id for run in self.project.runs()] if self.project is not None else []

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
        return [found.case for found in self.suggestions()]

    def suggestions(self) -> list[Suggestion]:
        """As ``suggest_next``, with scores and reasons."""
        return self.suggester.suggest(self.need_project())

    def case_score(self, case_id: str) -> float | None:
        """How unsure the newest prediction of a case is; ``None`` while there is none."""
        return case_score(self.need_project(), case_id)

    def next_uncertain(self) -> tuple[float, float, float] | None:
        """Center of the next uncertain place of the case in view, ``(z, y, x)`` in mm.

        Places are connected regions of high uncertainty, the heaviest first; those that were
        looked at are left out until all were. ``None`` when nothing is uncertain or predicted.
        """
        return self.review.go_on(1)

    def previous_uncertain(self) -> tuple[float, float, float] | None:
        """Center of the uncertain place before, as ``next_uncertain``."""
        return self.review.go_on(-1)

    # ---- Helpers ---------------------------------------------------------------------------

    def need_project(self) -> Project:
        if self.project is None:
            raise UserError("No project is open. Open one, or make one from a folder of scans.")
        return self.project

    def need_view(self) -> CaseView:
        if self.view is None:
            raise UserError("No case is shown. Choose one in the list of cases first.")
        return self.view

    def why_no_edit(self) -> str:
        """Why nothing can be drawn just now, to stand beside a button; empty when it can."""
        if self.project is None or self.view is None:
            return "choose a case in the list first"
        return self.project.read_only_reason

    def follow(self, title: str, events: Iterator[Event], each: Callable[[Event], None]) -> None:
        """Follow an engine process until it ends or the project is closed."""
        ended = threading.Event()

        def relayed() -> Iterator[Event]:
            try:
                yield from events
            finally:
                ended.set()

        self._unfollow = [(end, over) for end, over in self._unfollow if not over.is_set()]
        self._unfollow.append((self.background.follow(title, relayed(), each), ended))

    def tell(self, error: Exception) -> None:
        self.message.emit("error", describe_error(error))
