"""The whole application without a window: every button is one method here.

A :class:`Session` holds one project, the case being looked at and the run at work, and says through
psygnal events what changed. It knows no Qt and imports no torch; scripts drive it as it is, the
dock widget gives it a background that never blocks the window.
"""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_dycon import jobs
from napari_dycon.background import Background, PlainBackground
from napari_dycon.case_view import CaseView, load_case, load_prediction
from napari_dycon.engine.config import TrainConfig, make_config
from napari_dycon.errors import BusyError, DyconError, UserError
from napari_dycon.label_keeper import LabelKeeper
from napari_dycon.project.importers import project_from_folder
from napari_dycon.project.runs import Run
from napari_dycon.project.schema import UNANNOTATED
from napari_dycon.project.store import Project
from napari_dycon.run_status import RunStatus, advanced
from napari_dycon.suggestions import case_score, suggestions

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
    message = Signal(str, str)  # level, text for the person

    def __init__(self, background: Background | None = None) -> None:
        self.background: Background = background or PlainBackground()
        self.project: Project | None = None
        self.view: CaseView | None = None
        self.status = RunStatus()
        # Replaced by a window so that edits become one step of the layer's own undo history.
        self.label_writer: Callable[[tuple[Array, ...], Array], None] | None = None
        self._generation = 0
        self._run: Run | None = None
        self._keeper = LabelKeeper(self.background, self._label_written, self._tell)
        self._predicting = False
        self._unfollow: list[Callable[[], None]] = []
        self._spot = -1

    # ---- Data ------------------------------------------------------------------------------

    def create_project(
        self,
        path: Path | str,
        images: Path | str,
        labels: Path | str | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        """Make a project from a folder of scans and open it."""
        target, scans = Path(path), Path(images)
        drawn = Path(labels) if labels else None
        self.background.run(
            lambda: project_from_folder(target, scans, labels=drawn, classes=classes),
            self._set_project,
            self._tell,
        )

    def open_project(self, path: Path | str) -> None:
        """Open a project folder; a run that is still at work is attached again."""
        self.background.run(lambda: Project.open(Path(path)), self._set_project, self._tell)

    def add_cases(self, images: Sequence[Path | str]) -> None:
        """Add scans to the open project, without labels."""
        project = self._need_project()
        files = [Path(image) for image in images]

        def done(added: Sequence[object]) -> None:
            self.message.emit("info", f"{len(added)} case(s) added.")
            self.cases_changed.emit()

        self.background.run(lambda: project.add_cases(files), done, self._tell)

    def close_project(self) -> None:
        """Save what was drawn and close; a run at work goes on by itself."""
        self.flush()
        self._generation += 1
        for end in self._unfollow:
            end()
        self._unfollow.clear()
        self._predicting = False
        self.project, self.view, self._run = None, None, None
        self._set_status(RunStatus())
        self.case_shown.emit(None)
        self.project_changed.emit(None)

    def _set_project(self, project: Project) -> None:
        self.close_project()
        self.project = project
        self.project_changed.emit(project)
        self.cases_changed.emit()
        self._attach()

    # ---- Annotate --------------------------------------------------------------------------

    def show_case(self, case_id: str) -> None:
        """Load a case and make it the one in view; what was drawn before is saved first."""
        project = self._need_project()
        project.case(case_id)  # an unknown name is refused before anything changes
        self.flush()
        self._generation += 1
        generation = self._generation

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
                view.saves = old.saves
            self.view = view
            self._spot = -1
            self.label_writer = None
            self._ask_preview()
            self.case_shown.emit(view)

        def failed(error: Exception) -> None:
            self._tell(error)
            self.cases_changed.emit()  # the list goes back to the case in view

        self.background.run(lambda: load_case(project, case_id), done, failed)

    def save_label(self) -> None:
        """Save the label in view when it changed, off the caller's thread where there is one."""
        if self.view is not None and self.project is not None:
            self._keeper.save(self.project, self.view)

    def flush(self) -> None:
        """Save the label in view before returning; when that fails, nothing is dropped."""
        if self.view is not None and self.project is not None:
            try:
                self._keeper.flush(self.project, self.view)
            except DyconError as error:
                self._tell(error)
                raise

    def rescue_label(self) -> None:
        """Keep a label that cannot be saved in the person's home folder, and say where."""
        if self.view is None or self.project is None or not self.view.unsaved:
            return
        path = self._keeper.rescue(self.view)
        self.view.saved = self.view.label.copy()
        self.message.emit("warning", f"The label of {self.view.id} was kept in {path}.")

    def _label_written(self, view: CaseView, merged: bool) -> None:
        if merged:
            self.label_edited.emit(view.id)
            self.message.emit(
                "warning",
                f"The label of {view.id} was changed in another window too; the work of both is "
                "kept.",
            )
        self.label_saved.emit(view.id)
        self.cases_changed.emit()

    def set_label(self, new: npt.NDArray[np.uint8]) -> int:
        """Replace the label in view as one undoable step; returns how many voxels changed."""
        view = self._need_view()
        if new.shape != view.label.shape:
            raise UserError(
                f"The new label has the shape {new.shape}, the scan has {view.label.shape}."
            )
        indices = np.nonzero(view.label != new)
        if len(indices[0]):
            values = new[indices]
            if self.label_writer is None:
                view.label[indices] = values
            else:
                self.label_writer(indices, values)
            self.label_edited.emit(view.id)
        return len(indices[0])

    def fill_background(self, slice_index: int | None = None, axis: int = 0) -> int:
        """Declare what is not annotated to be background, in one slice or everywhere."""
        view = self._need_view()
        new = view.label.copy()
        where: tuple[Any, ...] = (slice(None),) * 3
        if slice_index is not None:
            where = tuple(slice_index if a == axis else slice(None) for a in range(3))
        part = new[where]
        new[where] = np.where(part == UNANNOTATED, 0, part)
        return self.set_label(new)

    def set_case_status(self, case_id: str, status: str) -> None:
        """Set a case's status; "labelled" and "reviewed" make the rest of it background."""
        project = self._need_project()
        if status in ("labelled", "reviewed"):
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

    def start_training(self, config: TrainConfig | None = None, **changes: Any) -> str:
        """Start a run in a process of its own and return its id.

        Parameters
        ----------
        config : settings; by default the preset "default" of DyCON
        **changes : single settings to replace, such as ``time_limit=300``
        """
        project = self._need_project()
        if self.status.phase != "idle":
            raise BusyError(f"Run {self.status.run} is at work; stop it before starting another.")
        self.flush()
        config = config or make_config("dycon")
        config = config.with_changes(**changes) if changes else config
        if not project.labelled("train"):
            raise UserError(
                "No case is labelled yet, and training needs at least one. Choose a case, paint "
                "the structure, then mark the case as labelled."
            )
        run = project.new_run(config.method, config.to_dict())
        run.write_control(command="run", preview=self.view.id if self.view else None)
        self.runs_changed.emit()
        self._set_status(RunStatus("starting", run.id, text="Starting the engine"))
        try:
            process = jobs.launch_training(project.path, run)
        except OSError as error:
            self._set_status(RunStatus())
            raise DyconError(f"The engine could not be started: {error}") from error
        self._run = run
        self._follow(run, process)
        return run.id

    def pause(self) -> None:
        """Ask the run to wait after its current step."""
        self._command("pause")

    def resume(self) -> None:
        """Let a paused run go on."""
        self._command("run")

    def stop(self) -> None:
        """Ask the run to save its weights and end."""
        self._command("stop")
        if self._run is not None:
            self._set_status(
                dataclasses.replace(self.status, phase="stopping", text="Stopping: saving weights")
            )

    def wait(self, timeout: float | None = None) -> None:
        """Block until no run and no prediction is at work (for scripts; never in a window)."""
        begin = time.monotonic()
        while self.status.phase != "idle" or self._predicting:
            if timeout is not None and time.monotonic() - begin > timeout:
                what = f"Run {self.status.run}" if self.status.run else "A prediction"
                raise DyconError(f"{what} was still at work after {timeout} s.")
            time.sleep(0.05)

    def project_runs(self) -> list[str]:
        """Ids of the open project's runs, the oldest first."""
        return [run.id for run in self.project.runs()] if self.project is not None else []

    def _command(self, command: str) -> None:
        if self._run is None:
            raise UserError("No run is at work.")
        self._run.write_control(command=command)

    def _attach(self) -> None:
        """Follow a run of this project that is still at work, from its first event."""
        if self.project is None:
            return
        for run in self.project.runs():
            if jobs.is_running(run):
                self._run = run
                self._set_status(RunStatus("starting", run.id, text="Attached to a run at work"))
                self._follow(run)
                return

    def _follow(self, run: Run, process: subprocess.Popen[bytes] | None = None) -> None:
        events = jobs.follow_training(run, process)
        each = functools.partial(self._on_event, run)
        self._unfollow.append(self.background.follow(f"Training {run.id}", events, each))

    def _ask_preview(self) -> None:
        if self._run is not None and self.view is not None:
            self._run.write_control(preview=self.view.id)

    def _on_event(self, run: Run, event: Event) -> None:
        kind = event.get("event")
        # "waiting" is only there so that a worker can be ended between events.
        if kind == "waiting" or self._run is None or run != self._run:
            return
        if kind in jobs.LAST_EVENTS:
            self._run = None
        self._set_status(advanced(self.status, event))
        self.event.emit(event)
        if kind == "preview":
            self.refresh_prediction(str(event["case"]))
        elif kind == "warning":
            self.message.emit("warning", str(event["message"]))
        elif kind == "failed":
            self.message.emit("error", str(event["message"]))
        if kind in jobs.LAST_EVENTS:
            self.runs_changed.emit()

    # ---- Review ----------------------------------------------------------------------------

    def predict(self, ids: Sequence[str], run: str | None = None) -> None:
        """Predict cases with a run's weights (the newest by default), in an engine process."""
        project = self._need_project()
        if self._predicting:
            raise BusyError("A prediction is at work already; wait until it is done.")
        if not ids:
            raise UserError("There is no case to predict: every one is labelled.")
        chosen = project.run(run)

        def each(event: Event) -> None:
            if self.project is not project:
                return
            self.event.emit(event)
            if event.get("event") == "predicted":
                self.refresh_prediction(str(event["case"]))
            elif event.get("event") in ("failed", "predicted all"):
                self._predicting = False
                self.cases_changed.emit()
                if event["event"] == "failed":
                    self.message.emit("error", str(event["message"]))

        self._predicting = True
        events = jobs.predict_process(project.path, chosen.id, [project.case(i).id for i in ids])
        title = f"Predicting with {chosen.id}"
        self._unfollow.append(self.background.follow(title, events, each))

    def refresh_prediction(self, case_id: str) -> None:
        """Read the newest prediction of the case in view again."""
        view, project = self.view, self.project
        if view is None or project is None or view.id != case_id:
            return
        generation = self._generation

        def done(found: CaseView) -> None:
            if generation == self._generation and self.view is view:
                view.run, view.prediction = found.run, found.prediction
                view.uncertainty, view.disagreement = found.uncertainty, found.disagreement
                view.spots, view.floors = found.spots, found.floors
                self.prediction_changed.emit(view)

        self.background.run(
            lambda: load_prediction(project, dataclasses.replace(view)), done, self._tell
        )

    def accept_prediction(self, classes: Sequence[int] | None = None) -> int:
        """Make the prediction in view the label, whole or for some classes; one undoable step.

        Returns how many voxels changed. With all classes the case counts as labelled.
        """
        view = self._need_view()
        if view.prediction is None:
            raise UserError(f"Case {view.id} has no prediction yet. Train, or press Predict first.")
        if classes is None:
            new = view.prediction.copy()
        else:
            new = view.label.copy()
            new[np.isin(view.label, classes)] = 0
            chosen = np.isin(view.prediction, classes)
            new[chosen] = view.prediction[chosen]
        changed = self.set_label(new)
        self.flush()
        return changed

    def suggest_next(self) -> list[str]:
        """Cases without a label, the one most worth labelling first."""
        return suggestions(self._need_project())

    def case_score(self, case_id: str) -> float | None:
        """How unsure the newest prediction of a case is; ``None`` while there is none."""
        return case_score(self._need_project(), case_id)

    def next_uncertain(self) -> tuple[float, float, float] | None:
        """Centre of the next most uncertain place of the case in view, ``(z, y, x)`` in mm.

        Places are connected regions of high uncertainty, the heaviest first; after the last one
        the first comes again. ``None`` when nothing is uncertain or nothing was predicted.
        """
        view = self._need_view()
        if not view.spots:
            return None
        self._spot = (self._spot + 1) % len(view.spots)
        spacing = view.image.spacing_mm
        z, y, x = (c * s for c, s in zip(view.spots[self._spot].centre, spacing, strict=True))
        return z, y, x

    # ---- Helpers ---------------------------------------------------------------------------

    def _need_project(self) -> Project:
        if self.project is None:
            raise UserError("No project is open. Open one, or make one from a folder of scans.")
        return self.project

    def _need_view(self) -> CaseView:
        if self.view is None:
            raise UserError("No case is shown. Choose one in the list of cases first.")
        return self.view

    def _set_status(self, status: RunStatus) -> None:
        if status != self.status:
            self.status = status
            self.run_changed.emit(status)

    def _tell(self, error: Exception) -> None:
        if isinstance(error, DyconError):
            self.message.emit("error", str(error))
        else:
            self.message.emit("error", f"Something unexpected went wrong: {error}")
