"""The label layer of a case: napari's Labels with outlines and an intensity-limited brush."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from psygnal import Signal

from napari_dycon.core.boxes import bounding_box
from napari_dycon.core.types import UNANNOTATED, Array, Box, LabelArray, Mask
from napari_dycon.errors import LabelError
from napari_dycon.widgets.layers.colormaps import (
    DARK_DASH,
    find_background_dots,
    find_outline_values,
)
from napari_dycon.widgets.layers.napari_layers import ExtensibleLabels, find_borders

MAX_VALUE = 255
DASH_VOXELS = 4  # of the outline of a prediction
DOT_VOXELS = 2  # of the outline of annotated background


class OnLimited(Protocol):
    """Callback of limited painting."""

    def __call__(self, *, has_painted: bool) -> None:
        """Handle one limited painting."""


@dataclasses.dataclass
class PaintLimits:
    """Limits of the brush of a case, shared by all views.

    ``image`` is the channel ``(D, H, W)`` whose intensities are compared, ``intensity_range`` the
    range that can be painted, ``reference_label`` a label that is copied instead of one value.
    ``on_limited`` is called after each limited painting with whether anything was painted,
    ``on_copied`` after each one that copied something.
    ``history_stepped`` is emitted after an undo or redo in any of the views, ``history_changed``
    also after a new edit.
    """

    history_stepped = Signal()
    history_changed = Signal()

    image: Array
    intensity_range: tuple[float, float] | None = None
    reference_label: LabelArray | None = None
    on_limited: OnLimited | None = None
    on_copied: Callable[[], None] | None = None


class CaseLabels(ExtensibleLabels):
    """Labels of a scan; structures are painted only where intensities are within ``limits``.

    Painting background and erasing are never limited, so that errors can always be removed. The
    same holds for napari's *preserve labels*: with it, a structure is painted only over unannotated
    voxels and background, and no other structure is painted over.
    Structures are filled with an outline (``contour`` is 1) or filled only (0); their colormap has
    both colors, see ``colormaps.build_label_colormap``.

    Parameters
    ----------
    image : (D, H, W), the channel whose intensities are compared
    read_only : the label cannot be edited
    keeps_array : data that is assigned is copied into the array of the layer, as one undo step, and
        rejected where it does not fit; strokes then always reach the array that is saved
    on_unknown_value : called with a value that the layer cannot hold, when it is selected
    """

    def __init__(
        self,
        data: Any,
        *,
        image: Array,
        read_only: bool = False,
        keeps_array: bool = False,
        on_unknown_value: Callable[[int], None] | None = None,
        **settings: Any,
    ) -> None:
        self.is_read_only = read_only
        self.keeps_array = False  # until the layer has its array
        self.on_unknown_value = on_unknown_value
        self._fill_preserves_labels = False  # as set in napari, during a fill
        # The colormap, its values of outlines and those of the dots around background.
        self._outline_values: tuple[Any, Array, tuple[int, ...]] | None = None
        super().__init__(data, **settings)
        self.keeps_array = keeps_array
        self.limits = PaintLimits(image)

    def show_case(self, data: Any, image: Array) -> None:
        """Show another case's label and scan, and clear the undo history.

        Undoing earlier edits would write into the wrong label.
        """
        self.clear_history()
        self.limits.image, self.limits.reference_label = image, None
        self.replace_array(data)

    @property
    def data(self) -> Any:
        """Array of the label, uint8 ``(D, H, W)``."""
        return super().data

    @data.setter
    def data(self, data: Any) -> None:
        if not self.keeps_array:
            self.replace_array(data)
        elif data is not self.data:
            self._copy_into_array(np.asarray(data))

    def _copy_into_array(self, values: Array) -> None:
        """Copy a whole label into the array as one undo step.

        Raises
        ------
        LabelError
            The label has another shape, or values that a label cannot hold.
        """
        if values.shape != self.data.shape:
            raise LabelError(
                f"The label layer has the shape {self.data.shape}, the new data {values.shape}. "
                "The label was not changed."
            )
        if not np.issubdtype(values.dtype, np.integer) and values.dtype != bool:
            raise LabelError(
                f"A label has integer values, the new data is {values.dtype}. "
                "The label was not changed."
            )
        if values.size and (values.min() < 0 or values.max() > MAX_VALUE):
            raise LabelError(
                f"A label has values from 0 to {MAX_VALUE}, the new data from {values.min()} to "
                f"{values.max()}. The label was not changed."
            )
        box = bounding_box(self.data != values)
        if box is not None:
            self.write_region(box, values[box].astype(np.uint8))
            self.refresh()

    def reject_value(self, value: int) -> bool:
        """Reject a value that does not fit into the array, such as that of napari's *new*."""
        if 0 <= int(value) <= MAX_VALUE:
            return False
        if self.on_unknown_value is not None:
            self.on_unknown_value(int(value))
        return True

    def draw_outline(
        self,
        labels: LabelArray,
        is_outline: Mask,
        origin: Sequence[int],
    ) -> Any:
        """Fill structures and draw their outlines in the opaque variant of their color.

        Annotated background is outlined with dots where it ends, beside unannotated voxels.
        """
        colormap = self.colormap
        if self._outline_values is None or self._outline_values[0] is not colormap:
            dots = find_background_dots(colormap)
            self._outline_values = colormap, find_outline_values(colormap), dots
        _, outline_values, dots = self._outline_values
        is_background, is_unannotated = labels == 0, labels == UNANNOTATED
        outline = np.where(is_background, 0, outline_values[labels])
        if dots and is_unannotated.any():
            is_end = is_background & find_borders(is_unannotated, 1)
            phase = compute_phase(labels.shape, origin, DOT_VOXELS)[is_end]
            outline[is_end] = np.asarray(dots, labels.dtype)[phase]
        return np.where(is_outline, outline, labels)

    def write_region(self, region: Box, values: LabelArray) -> None:
        """Write a box of voxels as one undo step; the caller refreshes the view."""
        old_values = self.data[region].copy()
        self.data[region] = values
        self.record_edit(region, old_values, values.copy())
        self.events.edited()

    def undo(self) -> None:
        """Undo the last step."""
        super().undo()
        self.limits.history_stepped.emit()

    def redo(self) -> None:
        """Redo the step that was undone last."""
        super().redo()
        self.limits.history_stepped.emit()

    def on_history_changed(self) -> None:
        """Tell that there is another step to undo or to redo."""
        self.limits.history_changed.emit()

    def paint_mask(self, data: Any, mask: Any, value: int, region: Box) -> Any:
        """Paint within the limits of the brush."""
        if (
            self.limits.reference_label is None
            and self.limits.intensity_range is not None
            and value not in (0, UNANNOTATED)
        ):
            low, high = self.limits.intensity_range
            intensities = self.limits.image[region]
            brush = np.asarray(mask)
            mask = brush & (intensities >= low) & (intensities <= high)
            if self.limits.on_limited is not None and brush.any():
                self.limits.on_limited(has_painted=bool(mask.any()))
        if self.limits.reference_label is None:
            return self._paint_value(data, mask, value, region)
        has_painted = None
        reference = self.limits.reference_label[region]
        with self.block_history():  # one step of undo, however many structures
            for structure in np.unique(reference[mask]).tolist():
                structure_mask = np.asarray(mask) & (reference == structure)
                value_painted = self._paint_value(data, structure_mask, structure, region)
                has_painted = (
                    value_painted
                    if has_painted is None
                    else has_painted | (False if value_painted is None else value_painted)
                )
        if self.limits.on_copied is not None and np.any(has_painted):
            self.limits.on_copied()
        return has_painted

    def _paint_value(self, data: Any, mask: Any, value: int, region: Box) -> Any:
        """Paint one value, over other structures only if they need not be preserved."""
        preserves_labels = self.preserve_labels or self._fill_preserves_labels
        if preserves_labels and value not in (0, UNANNOTATED):
            mask = np.asarray(mask) & ((data == UNANNOTATED) | (data == 0))
        with self.without_preserving():
            return super().paint_mask(data, mask, value, region)

    def fill(self, coord: Any, new_label: int, refresh: bool = True) -> None:
        """Fill an area, without voxels that must be preserved."""
        self._fill_preserves_labels = bool(self.preserve_labels)
        try:
            with self.without_preserving():
                super().fill(coord, new_label, refresh)
        finally:
            self._fill_preserves_labels = False

    # ---- The brush in millimeters ------------------------------------------------------------

    @property
    def brush_mm(self) -> float:
        """Diameter of the brush."""
        return float(2 * np.floor(self.brush_size / 2) + 1) * self.finest_painted_spacing

    @brush_mm.setter
    def brush_mm(self, diameter: float) -> None:
        # napari's brush of size n is 2 floor(n / 2) + 1 of the finest painted voxels wide.
        self.brush_size = max(2 * round((diameter / self.finest_painted_spacing - 1) / 2), 1)


class PredictedLabels(ExtensibleLabels):
    """A predicted segmentation as dashed outlines, light and dark in turn.

    One of the two is visible on any scan, and neither is mistaken for the label's solid outline.
    Without this class, a copy of the layer shows solid outlines.
    """

    def draw_outline(self, labels: LabelArray, is_outline: Mask, origin: Sequence[int]) -> Any:
        """Draw the outlines of structures as dashes, and nothing inside."""
        phase = compute_phase(labels.shape, origin, DASH_VOXELS)
        dashes = np.where(phase == 0, labels, np.uint8(DARK_DASH))
        return np.where(is_outline & (labels != 0), dashes, 0).astype(labels.dtype)


def compute_phase(shape: Sequence[int], origin: Sequence[int], period: int) -> Array:
    """Compute which of two colors each voxel of a dashed outline has, ``(h, w)`` of 0 and 1.

    They alternate along rows, columns and both diagonals.

    Parameters
    ----------
    origin : indices of the first voxel in the slice
    period : voxels of a dash along a column
    """
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    phase = (rows + origin[0] + 2 * (columns + origin[1])) // period % 2
    return np.asarray(phase, np.intp)
