"""Accepting a prediction, or a part of it, into the label; the status of the case follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.labels.autosave import LabelAutosaver
from napari_dycon.application.labels.editing import LabelEditor
from napari_dycon.application.state import AppState
from napari_dycon.application.task_runner import TaskRunner
from napari_dycon.core.types import Box, LabelArray, Mask
from napari_dycon.errors import DyconError, UserError
from napari_dycon.project.acceptances import (
    has_acceptance_record,
    record_acceptance,
    update_after_undo,
)
from napari_dycon.project.models import Status


@dataclass(frozen=True, eq=False)
class AcceptedEdit:
    """The last acceptance.

    Attributes
    ----------
    label_before, label_after : the whole label, ``(D, H, W)``, not to be changed
    status : of the case before
    is_whole : whether the whole prediction replaced the label
    """

    case: str
    label_before: LabelArray
    label_after: LabelArray
    status: Status
    is_whole: bool

    @property
    def was_reviewed(self) -> bool:
        """Whether the case was reviewed, and is not any more."""
        return self.is_whole and self.status is Status.REVIEWED


class PredictionAcceptance:
    """Accepts predictions of the active case.

    Attributes
    ----------
    last : the last acceptance of the active case
    """

    def __init__(
        self,
        state: AppState,
        task_runner: TaskRunner,
        editor: LabelEditor,
        autosaver: LabelAutosaver,
    ) -> None:
        self._state = state
        self._task_runner = task_runner
        self._editor = editor
        self._autosaver = autosaver
        self.last: AcceptedEdit | None = None
        self._before_brush: LabelArray | None = None
        self._has_copied = False  # by brush, since the label was last saved
        state.case_shown.connect(self._on_case_shown)
        state.label_saved.connect(self._record_copied)
        state.edit_undone.connect(self._on_edit_undone)

    def accept(
        self,
        classes: Sequence[int] | None,
        slice_: tuple[int, int] | None,
        component: tuple[int, int, int] | None,
    ) -> int:
        """Replace the label with the prediction; see ``Session.accept_prediction``."""
        case, project = self._state.require_case(), self._state.require_project()
        prediction = case.prediction
        if prediction is None:
            raise UserError(
                f"Case {case.display_name} has no prediction yet. Press Predict this case."
            )
        is_whole = classes is None and slice_ is None and component is None
        new = prediction
        if not is_whole:
            new = merge(case.label, prediction, classes, slice_, component)
        before, status = case.label.copy(), project.get_case(case.id).status
        if slice_ is None:
            changed = self._editor.set_label(new)
        else:  # the rest of the label need not be compared
            box = _find_box(new.shape, *slice_)
            changed = self._editor.write_label(box, new[box])
        if changed:
            self.last = AcceptedEdit(case.id, before, new, status, is_whole)
            if case.run is not None:
                self._record(case, case.run, before, new)
            if self.last.was_reviewed:  # the label of the prediction has not been reviewed
                self._set_status(Status.LABELED)
        self._autosaver.save()
        return changed

    def begin_brush(self) -> None:
        """Note the label before a brush copies parts of the prediction to it."""
        self._before_brush = self._state.require_case().label.copy()

    def note_copied(self) -> None:
        """Note that the brush has copied a part; this is recorded once the label is saved."""
        self._has_copied = True

    def _record_copied(self, case_id: str) -> None:
        case, before = self._state.case, self._before_brush
        if not self._has_copied or case is None or case.id != case_id:
            return
        self._has_copied = False
        if case.run is not None and before is not None:
            self._record(case, case.run, before, case.label.copy())

    def can_undo(self) -> bool:
        """Whether the label is as the last acceptance left it, so that one undo takes it back."""
        case, last = self._state.case, self.last
        if case is None or last is None or last.case != case.id:
            return False
        return np.array_equal(case.label, last.label_after)

    def _record(self, case: ActiveCase, run: str, before: LabelArray, after: LabelArray) -> None:
        """Record the origin of the label, so that no Dice is shown of a prediction with itself."""
        project = self._state.require_project()
        self._task_runner.submit(
            lambda: record_acceptance(project, run, case.id, before, after),
            lambda _: self._state.cases_changed.emit(),
            self._state.report_error,
        )

    def _set_status(self, status: Status) -> None:
        """Save the label, and set the status of the active case."""
        case = self._state.require_case()
        self._autosaver.flush()
        self._state.require_project().set_status(case.id, status)
        self._state.cases_changed.emit()

    def _on_case_shown(self, _: object) -> None:
        self.last, self._before_brush, self._has_copied = None, None, False

    def _on_edit_undone(self) -> None:
        """Take back an acceptance that was undone, or restore it."""
        project, case = self._state.project, self._state.case
        if project is None or case is None or project.read_only_reason:
            return
        if (last := self.last) is not None and last.was_reviewed:
            # The status of other cases follows from the label.
            try:
                if np.array_equal(case.label, last.label_before):
                    self._set_status(Status.REVIEWED)
                elif np.array_equal(case.label, last.label_after):
                    self._set_status(Status.LABELED)
            except DyconError as error:  # a signal would make an unexpected error of it
                self._state.report_error(error)
        # The prediction that is shown now may be of another run.
        runs = [
            run.id for run in project.runs.list() if has_acceptance_record(project, run.id, case.id)
        ]
        if not runs:
            return
        label = case.label.copy()

        def on_done(is_changed: bool) -> None:
            if is_changed and self._state.project is project:
                self._state.cases_changed.emit()

        self._task_runner.submit(
            lambda: sum(update_after_undo(project, run, case.id, label) for run in runs) > 0,
            on_done,
            self._state.report_error,
        )


def _find_box(shape: Sequence[int], axis: int, index: int) -> Box:
    """Return the box of one slice."""
    first = range(shape[axis])[index]
    spans = [slice(0, size) for size in shape]
    spans[axis] = slice(first, first + 1)
    return tuple(spans)


def merge(
    label: LabelArray,
    prediction: LabelArray,
    classes: Sequence[int] | None,
    slice_: tuple[int, int] | None,
    component: tuple[int, int, int] | None,
) -> LabelArray:
    """Return a label with the accepted part of a prediction."""
    merged = label.copy()
    selection: tuple[Any, ...] = (slice(None),) * 3
    if slice_ is not None:
        axis, index = slice_
        selection = tuple(index if a == axis else slice(None) for a in range(3))
    part, predicted_part = merged[selection], prediction[selection]  # views
    is_accepted: Mask | bool = True
    if component is not None:
        is_accepted = _component_at(prediction, component)[selection]
    elif classes is not None:
        part[np.isin(part, classes)] = 0
        is_accepted = np.isin(predicted_part, classes)
    np.copyto(part, predicted_part, where=is_accepted)
    return merged


def _component_at(prediction: LabelArray, voxel: tuple[int, int, int]) -> Mask:
    """Return the connected component of the predicted structure that contains a voxel."""
    is_inside = all(0 <= v < n for v, n in zip(voxel, prediction.shape, strict=True))
    value = int(prediction[voxel]) if is_inside else 0
    if not value:
        raise UserError("Nothing is predicted here. Click inside a predicted structure.")
    components, _ = ndimage.label(prediction == value, structure=np.ones((3, 3, 3)))
    component: Mask = components == components[voxel]
    return component
