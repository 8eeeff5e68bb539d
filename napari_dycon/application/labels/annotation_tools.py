"""Annotation tools: interpolation, growing and clean-up, each one undo step, in the background.

A tool works on a copy of the label. Its result is merged into the label voxel by voxel, and voxels
painted in the meantime are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_dycon.annotation import interpolation, morphology, random_walker
from napari_dycon.annotation.regions import (
    extrude_rectangle,
    rectangle_to_box,
    update_box,
)
from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.labels.editing import LabelEditor
from napari_dycon.application.labels.operations import (
    LabelContext,
    LabelEdit,
    Operation,
    make_interpolation,
)
from napari_dycon.application.state import AppState
from napari_dycon.application.task_runner import TaskRunner
from napari_dycon.core.types import Box, ItemProgressCallback, LabelArray
from napari_dycon.errors import BusyError, UserError

GROW_MARGIN_MM = 25.0
PICK_RADIUS_MM = 2.0  # radius around a click whose intensities define the range
PICK_STD_FACTOR = 2.0  # half-width in standard deviations


class AnnotationTools:
    """Annotation tools for the active case; a proposal is kept until accepted or discarded."""

    proposal_changed = Signal(object)  # (D, H, W) uint8, voxels to add, or None
    operation_changed = Signal(str)  # name of the running operation, or ""
    paint_range_changed = Signal(object)  # (low, high) that painting is limited to, or None
    roi_changed = Signal(object)  # Box that limits growing, or None

    def __init__(self, state: AppState, task_runner: TaskRunner, editor: LabelEditor) -> None:
        self._state = state
        self._task_runner = task_runner
        self._editor = editor
        self.operation = ""
        self._proposal: LabelEdit | None = None
        self._proposal_case = ""  # name of its case
        self.paint_range: tuple[float, float] | None = None
        self._paint_range_case = ("", False)  # id of the case shown last, and whether it is a CT
        self.roi: Box | None = None
        self._roi_case_id = ""  # case of the region
        state.case_shown.connect(self._on_case_changed)

    # ---- Immediate edits --------------------------------------------------------------------

    def fill_between(
        self,
        values: Sequence[int],
        axis: int = 0,
        *,
        refine_to_edges: bool = False,
        channel: int = 0,
    ) -> None:
        """Interpolate structures between annotated slices along an axis.

        With ``refine_to_edges`` interpolated borders follow image edges where slices are far apart.
        """
        image = self._state.require_case().get_channel(channel) if refine_to_edges else None
        self._apply_operation(make_interpolation(self._get_context(), values, axis, image))

    def copy_slice(self, value: int, axis: int, source: int, target: int) -> None:
        """Copy a structure to the unannotated voxels of another slice."""
        n_slices = self._state.require_case().label.shape[axis]
        if not (0 <= source < n_slices and 0 <= target < n_slices):
            raise UserError("There is no neighboring slice to copy from.")

        def compute(label: LabelArray) -> LabelArray:
            if not (np.moveaxis(label, axis, 0)[source] == value).any():
                raise UserError("The neighboring slice does not contain this structure.")
            return interpolation.copy_slice(label, value, axis, source, target)

        self._apply_to_structure(
            "Copying a slice",
            value,
            compute,
            f"Copied from slice {source + 1}",
            "Nothing was copied: this slice is already annotated there.",
        )

    def smooth(self, value: int, sigma_mm: float) -> None:
        """Smooth a structure's surface."""
        spacing = self._state.require_case().image.spacing_mm
        self._apply_to_structure(
            "Smoothing",
            value,
            lambda label: morphology.smooth(label, value, spacing, sigma_mm),
            "Smoothed",
            "Smoothing changed nothing.",
        )

    def fill_holes(self, value: int) -> None:
        """Fill holes inside a structure."""
        self._apply_to_structure(
            "Filling holes",
            value,
            lambda label: morphology.fill_holes(label, value),
            "Holes filled",
            "There are no holes to fill.",
        )

    def keep_largest_component(self, value: int) -> None:
        """Keep the largest connected component of a structure."""
        self._apply_to_structure(
            "Keeping the largest component",
            value,
            lambda label: morphology.keep_largest_component(label, value),
            "Kept the largest component",
            "There is only one component.",
        )

    # ---- With a preview --------------------------------------------------------------------

    def grow(self, channel: int = 0, margin_mm: float = GROW_MARGIN_MM) -> None:
        """Propose a segmentation grown from scribbles; see ``accept_proposal``.

        It is limited to the region of interest or, without one, to a margin around the scribbles.
        """
        case = self._state.require_case()
        image, roi = case.get_channel(channel), self.roi

        def compute(label: LabelArray, _: ItemProgressCallback) -> LabelArray:
            box = roi or random_walker.find_scribble_box(label, case.image.spacing_mm, margin_mm)
            return random_walker.grow(image, label, box, case.image.spacing_mm).label

        self._run(
            Operation(
                "Growing from scribbles",
                compute,
                lambda _before, _after: "",
                "Nothing to propose: everything around the scribbles is already annotated.",
            ),
            self._set_proposal,
        )

    def accept_proposal(self) -> int:
        """Add the proposal to the label as one undo step; returns the number of changed voxels."""
        if self._proposal is None:
            raise UserError("There is no proposal to accept. Grow from scribbles first.")
        edit, self._proposal = self._proposal, None
        self.proposal_changed.emit(None)
        n_changed = self._apply_edit(edit)
        self._state.message.emit("info", "Proposal added to the label.")
        return n_changed

    def discard_proposal(self) -> None:
        """Discard the proposal; the label is unchanged."""
        self._proposal = None
        self.proposal_changed.emit(None)

    @property
    def has_proposal(self) -> bool:
        """Whether there is a proposal to accept."""
        return self._proposal is not None

    def draw_roi(self, corners: npt.ArrayLike, axis: int, margin_mm: float = GROW_MARGIN_MM) -> Box:
        """Set the region of interest from a rectangle drawn in a slice, and return it.

        The first rectangle is extruded to all slices with scribbles inside it, plus ``margin_mm``.
        A later one changes the outline, or extends the region to its slice.

        Parameters
        ----------
        corners : (N, 3), in voxels
        axis : normal of the slice
        """
        case = self._state.require_case()
        rectangle = rectangle_to_box(corners, axis, case.label.shape)
        if self.roi is None:
            roi = extrude_rectangle(rectangle, axis, case.label, case.image.spacing_mm, margin_mm)
        else:
            roi = update_box(self.roi, rectangle, axis)
        self.set_roi(roi)
        return roi

    def set_roi(self, roi: Box | None) -> None:
        """Set the region that limits growing; ``None`` for a margin around the scribbles."""
        case = self._state.require_case() if roi is not None else self._state.case
        if roi is not None and case is not None:
            spans = zip(roi, case.label.shape, strict=True)
            if not all(0 <= s.start < s.stop <= n for s, n in spans):
                raise UserError("The region is empty or extends beyond the scan.")
        self._roi_case_id = case.id if case is not None else ""
        self.roi = roi
        self.roi_changed.emit(roi)

    # ---- Painting within an intensity range --------------------------------------------------

    def set_paint_range(self, intensity_range: tuple[float, float] | None) -> None:
        """Limit the brush to an intensity range; ``None`` for no limit."""
        if intensity_range is not None and not intensity_range[0] <= intensity_range[1]:
            raise UserError(f"The range {intensity_range[0]:g} to {intensity_range[1]:g} is empty.")
        self.paint_range = intensity_range
        self.paint_range_changed.emit(intensity_range)

    def pick_intensity_range(self, voxel: Sequence[int], channel: int = 0) -> tuple[float, float]:
        """Limit painting to intensities like those around a voxel ``(d, h, w)``."""
        case = self._state.require_case()
        image = case.get_channel(channel)
        if not all(0 <= v < n for v, n in zip(voxel, image.shape, strict=True)):
            raise UserError("That position is outside the scan.")
        radius = [max(round(PICK_RADIUS_MM / s), 1) for s in case.image.spacing_mm]
        neighborhood = image[
            tuple(slice(max(v - r, 0), v + r + 1) for v, r in zip(voxel, radius, strict=True))
        ].astype(np.float64)
        median = float(np.median(neighborhood))
        # Robust to a click beside an edge.
        half_width = PICK_STD_FACTOR * 1.4826 * float(np.median(np.abs(neighborhood - median)))
        low, high = case.intensity_ranges[channel]
        half_width = max(half_width, 0.02 * (high - low))
        self.set_paint_range((median - half_width, median + half_width))
        return median - half_width, median + half_width

    # ---- Helpers ---------------------------------------------------------------------------

    def _get_context(self) -> LabelContext:
        case, project = self._state.require_case(), self._state.require_project()
        names = {info.value: info.name for info in project.classes}
        return LabelContext(names, case.image.spacing_mm)

    def _apply_to_structure(
        self,
        title: str,
        value: int,
        compute: Callable[[LabelArray], LabelArray],
        done: str,
        nothing: str,
    ) -> None:
        """Apply an operation without progress to one structure."""
        context = self._get_context()
        self._apply_operation(
            Operation(
                title,
                lambda label, _: compute(label),
                lambda _, after: f"{done}: {context.describe_volumes(after, [value])}.",
                nothing,
            )
        )

    def _apply_operation(self, operation: Operation) -> None:
        def apply_edit(edit: LabelEdit) -> None:
            self._apply_edit(edit)
            self._state.message.emit("info", edit.message)

        self._run(operation, apply_edit)

    def _run(self, operation: Operation, on_done: Callable[[LabelEdit], None]) -> None:
        """Run on a copy of the label; the result is used if the case is still active."""
        if self.operation:
            raise BusyError(f"{self.operation} is still running. Wait a moment, or cancel it.")
        case = self._state.require_case()
        snapshot = case.label.copy()

        def finish(edit: LabelEdit | None) -> None:
            self._set_operation("")
            if self._state.case is not case:
                text = f"{operation.title}: dropped, as {case.display_name} is no longer shown."
                self._state.message.emit("info", text)
                return
            if edit is None:
                self._state.message.emit("info", operation.nothing)
            else:
                on_done(edit)

        def on_error(error: Exception) -> None:
            self._set_operation("")
            self._state.report_error(error)

        def on_cancel() -> None:
            self._set_operation("")
            self._state.message.emit("info", "Canceled; the label is unchanged.")

        self._set_operation(operation.title)
        self._task_runner.submit_with_progress(
            operation.title,
            lambda progress: operation.run(snapshot, progress),
            finish,
            on_error,
            on_cancel=on_cancel,
            drop_result=True,
        )

    def _set_proposal(self, edit: LabelEdit) -> None:
        self._proposal = edit
        proposed = np.zeros(self._state.require_case().label.shape, np.uint8)
        proposed[edit.box] = np.where(edit.after != edit.before, edit.after, 0)
        self._proposal_case = self._state.require_case().display_name
        self.proposal_changed.emit(proposed)
        self._state.message.emit("info", "Proposal ready: Accept (A) or Discard (D).")

    def _apply_edit(self, edit: LabelEdit) -> int:
        current = self._state.require_case().label[edit.box]
        is_untouched = current == edit.before
        return self._editor.write_label(edit.box, np.where(is_untouched, edit.after, current))

    def _on_case_changed(self, case: ActiveCase | None) -> None:
        if self._proposal is not None:
            self.discard_proposal()
            text = f"The proposal for {self._proposal_case} was discarded."
            self._state.message.emit("info", text)
        if self.roi is not None and (case is None or case.id != self._roi_case_id):
            self.set_roi(None)
        self._release_paint_range(case)

    def _release_paint_range(self, case: ActiveCase | None) -> None:
        """Paint all intensities in another case, unless both are CT.

        Intensities of MR differ from scan to scan, those of CT are Hounsfield units.
        """
        previous = self._paint_range_case
        self._paint_range_case = (case.id, case.is_ct) if case is not None else ("", False)
        is_same_case = case is not None and case.id == previous[0]
        is_ct = case is not None and case.is_ct and previous[1]
        if self.paint_range is None or is_same_case or is_ct:
            return
        self.set_paint_range(None)

    def _set_operation(self, operation: str) -> None:
        self.operation = operation
        self.operation_changed.emit(operation)
