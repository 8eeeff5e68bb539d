"""The application without a window: every button corresponds to one method here.

A :class:`Session` composes the services of ``application`` over one shared state and forwards to
them. It needs neither Qt nor torch. Scripts use it directly; the dock widget passes a task runner
that does not block the window.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.active_learning import ActiveLearning, Suggestion
from napari_dycon.application.cases.active_agreement import ActiveAgreement
from napari_dycon.application.cases.service import CaseService
from napari_dycon.application.import_export import ImportExport
from napari_dycon.application.labels.annotation_tools import AnnotationTools
from napari_dycon.application.labels.autosave import LabelAutosaver
from napari_dycon.application.labels.editing import LabelEditor, LabelWriter
from napari_dycon.application.process_followers import ProcessFollowers
from napari_dycon.application.project_opening import ProjectOpener
from napari_dycon.application.projects.project_editing import ProjectEditor
from napari_dycon.application.review import Review
from napari_dycon.application.state import AppState
from napari_dycon.application.task_runner import InlineTaskRunner, TaskRunner
from napari_dycon.application.training.controller import RunController
from napari_dycon.application.training.status import RunStatus
from napari_dycon.core.types import Array, Box, LabelArray
from napari_dycon.engine.config import TrainConfig
from napari_dycon.project.importing.discovery import Scan
from napari_dycon.project.models import Status
from napari_dycon.project.store import Project


class Session:
    """One project, one active case, at most one run; signals are those of ``AppState``."""

    def __init__(self, task_runner: TaskRunner | None = None) -> None:
        self.task_runner: TaskRunner = task_runner or InlineTaskRunner()
        self.state = state = AppState()
        # Services connect first, so that they handle a change before a window does.
        self._autosaver = LabelAutosaver(state, self.task_runner)
        self._editor = LabelEditor(state, self._autosaver)
        self._followers = ProcessFollowers(state, self.task_runner)
        self.case_service = CaseService(state, self.task_runner, self._autosaver)
        self.active_learning = ActiveLearning(state)
        self.review = Review(
            state, self.task_runner, self._followers, self._editor, self._autosaver
        )
        self.run_controller = RunController(state, self._followers, self._autosaver, self.review)
        self.annotation = AnnotationTools(state, self.task_runner, self._editor)
        self.project_opener = ProjectOpener(
            state, self.task_runner, self._autosaver, self.run_controller
        )
        self.import_export = ImportExport(
            state, self.task_runner, self.project_opener, self._autosaver
        )
        self.project_editor = ProjectEditor(
            state, self.task_runner, self.case_service, self.review, self.import_export
        )
        self.project_changed, self.cases_changed = state.project_changed, state.cases_changed
        self.case_shown, self.prediction_changed = state.case_shown, state.prediction_changed
        self.label_saved, self.label_edited = state.label_saved, state.label_edited
        self.run_changed, self.runs_changed = state.run_changed, state.runs_changed
        self.event, self.hotspot_visited = state.event, state.hotspot_visited
        self.message, self.prompt_requested = state.message, state.prompt_requested

    @functools.cached_property
    def active_agreement(self) -> ActiveAgreement:
        """Volumes and agreement of the active case, measured from the first use on."""
        return ActiveAgreement(self.state, self.task_runner)

    # ---- State -----------------------------------------------------------------------------

    @property
    def project(self) -> Project | None:
        """The open project."""
        return self.state.project

    @property
    def case(self) -> ActiveCase | None:
        """The active case."""
        return self.state.case

    @property
    def status(self) -> RunStatus:
        """Status of the run."""
        return self.state.run_status

    def require_project(self) -> Project:
        """Return the open project, or raise ``UserError``."""
        return self.state.require_project()

    def require_case(self) -> ActiveCase:
        """Return the active case, or raise ``UserError``."""
        return self.state.require_case()

    def edit_blocked_reason(self) -> str:
        """Return why the label cannot be edited, for tooltips; empty if it can."""
        if self.project is None or self.case is None:
            return "select a case in the list first"
        return self.project.read_only_reason or ""

    def list_run_ids(self) -> list[str]:
        """Return the ids of the open project's runs, the oldest first."""
        return [run.id for run in self.project.runs.list()] if self.project is not None else []

    def report_error(self, error: Exception) -> None:
        """Show an error as a message."""
        self.state.report_error(error)

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
        """Create a project from a folder of scans and open it; see ``importing.create_project``.

        Scans that cannot be used are left out and reported; for irregular slices the user is
        prompted.
        """
        self.import_export.create(
            path, images, labels, classes, channels, scans=scans, resample=resample
        )

    def open_project(self, path: Path | str, *, read_only: bool = False) -> None:
        """Open a project folder; an active run is followed again.

        If another session has it open, the user is asked whether to open it read-only. Without a
        window it is opened with a warning, since edits of both sessions are merged.

        Parameters
        ----------
        read_only : open it without changing anything
        """
        self.project_opener.open(path, read_only=read_only)

    def set_project(self, project: Project) -> None:
        """Use a project that is already loaded."""
        self.project_opener.set_project(project)

    def close_project(self) -> None:
        """Save the label and close the project; a run continues by itself."""
        self.project_opener.close()

    def add_cases(self, images: Sequence[Path | str], *, resample: bool = False) -> None:
        """Add scans to the open project, without labels: files, or folders of scans.

        With several channels, names of files and folders must identify the channel; see
        ``patient_folders.resolve_scans``.
        """
        self.import_export.add_paths(images, resample=resample)

    def add_scans(self, scans: Sequence[Scan]) -> None:
        """Add scans whose channels the user assigned, without labels."""
        self.import_export.add_scans(scans)

    def export(
        self,
        format_: str,
        out: Path | str,
        *,
        include_partial: bool = False,
        include_unreviewed: bool = False,
        **options: Any,
    ) -> None:
        """Write masks, a dataset, the network or a report; see ``exports.registry.export``.

        One export at a time: a second one raises ``BusyError``.

        Parameters
        ----------
        include_partial : also export the masks of cases in progress; in a DICOM segmentation, what
            is not drawn counts as background
        include_unreviewed : also export predictions that were not accepted, alone and in the
            unannotated voxels of cases in progress
        **options : other fields of ``exports.options.ExportOptions``, such as ``cases``
        """
        self.import_export.export(
            format_,
            out,
            include_partial=include_partial,
            include_unreviewed=include_unreviewed,
            **options,
        )

    # ---- Annotate --------------------------------------------------------------------------

    def show_case(self, case_id: str) -> None:
        """Load a case and make it active; the label of the previous one is saved first."""
        self.case_service.show(case_id)

    def preload_cases(self, case_ids: Sequence[str]) -> None:
        """Preload cases that may be shown next, one after the other.

        Stops when another case is shown; read errors are not reported.
        """
        self.case_service.preload(case_ids)

    @property
    def has_unsaved_changes(self) -> bool:
        """Whether the active label has unsaved changes."""
        return self._autosaver.has_unsaved_changes

    def save_label(self) -> None:
        """Save the active label if it changed, in the background if the task runner supports it."""
        self._autosaver.save()

    def flush(self) -> None:
        """Save the active label before returning; if that fails, nothing is dropped."""
        self._autosaver.flush()

    def save_recovery_copy(self) -> None:
        """Write a label that cannot be saved to the user's home folder, and report the path."""
        self._autosaver.save_recovery_copy()

    @property
    def label_writer(self) -> LabelWriter | None:
        """Callback that writes edits into a window's layer; see ``LabelEditor.writer``."""
        return self._editor.writer

    @label_writer.setter
    def label_writer(self, writer: LabelWriter | None) -> None:
        self._editor.writer = writer

    def set_label(self, new: LabelArray) -> int:
        """Replace the active label as one undo step; returns the number of changed voxels."""
        return self._editor.set_label(new)

    def write_label(self, box: Box, values: Array) -> int:
        """Write a box of the active label as one undo step; see ``LabelEditor``."""
        return self._editor.write_label(box, values)

    def fill_background(self, slice_index: int | None = None, axis: int = 0) -> int:
        """Set unannotated voxels to background, in one slice or everywhere."""
        return self._editor.fill_background(slice_index, axis)

    def set_case_status(self, case_id: str, status: Status) -> None:
        """Set a case's status; "labeled" and "reviewed" set unannotated voxels to background."""
        self._editor.set_case_status(case_id, status)

    # ---- Train -----------------------------------------------------------------------------

    def start_training(self, config: TrainConfig | None = None, **changes: Any) -> str:
        """Start a run in a process of its own and return its id.

        Parameters
        ----------
        config : settings; by default the preset "default" of DyCON
        **changes : single settings to replace, such as ``time_limit=300``; without ``config``
            also ``method`` and ``preset``
        """
        return self.run_controller.start(config, **changes)

    def pause(self) -> None:
        """Pause the run after its current step."""
        self.run_controller.send_command("pause")

    def resume(self) -> None:
        """Resume a paused run."""
        self.run_controller.send_command("run")

    def stop(self) -> None:
        """Stop the run and save its weights."""
        self.run_controller.send_command("stop")

    def wait(self, timeout_s: float | None = None) -> None:
        """Block until no run and no prediction is running (for scripts; never in a window)."""
        self.run_controller.wait(timeout_s)

    # ---- Review ----------------------------------------------------------------------------

    def predict(self, ids: Sequence[str], run: str | None = None) -> None:
        """Predict cases with a run's weights (the newest by default), in an engine process."""
        self.review.predict(ids, run)

    def refresh_prediction(self, case_id: str) -> None:
        """Reload the newest prediction of the active case."""
        self.review.refresh(case_id)

    def accept_prediction(
        self,
        classes: Sequence[int] | None = None,
        *,
        slice_: tuple[int, int] | None = None,
        component: tuple[int, int, int] | None = None,
    ) -> int:
        """Accept the prediction of the active case as one undo step.

        Parameters
        ----------
        classes : structures to accept; by default all of them and the background
        slice_ : ``(axis, index)`` of the only slice to accept
        component : voxel ``(d, h, w)`` of the only connected component to accept

        Returns
        -------
        Number of changed voxels. Accepting a whole prediction marks the case as labeled.
        """
        return self.review.acceptance.accept(classes, slice_, component)

    def suggest_next(self) -> list[str]:
        """Return unlabeled cases, the highest priority first."""
        return [suggestion.case for suggestion in self.list_suggestions()]

    def list_suggestions(self) -> list[Suggestion]:
        """Rank cases like ``suggest_next``, with scores and reasons."""
        return self.active_learning.list_suggestions()

    def get_case_score(self, case_id: str) -> float | None:
        """Return the mean uncertainty of a case's newest prediction; ``None`` if there is none."""
        return self.active_learning.get_case_score(case_id)

    def next_uncertain(self) -> tuple[float, float, float] | None:
        """Return the center of the next uncertain region of the active case, ``(z, y, x)`` in mm.

        The region with the largest mass comes first; visited ones are skipped until all were
        visited. ``None`` if there is no uncertain region or no prediction.
        """
        return self.review.step_hotspot(1)

    def previous_uncertain(self) -> tuple[float, float, float] | None:
        """Return the center of the previous uncertain region, like ``next_uncertain``."""
        return self.review.step_hotspot(-1)
