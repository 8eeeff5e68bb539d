"""The label layer of a case: napari's Labels with an intensity-limited brush."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np
from psygnal import Signal

from napari_dycon.core.types import UNANNOTATED, Array, Box, LabelArray
from napari_dycon.widgets.layers.napari_internals import ExtensibleLabels


class OnLimited(Protocol):
    """Callback of limited painting."""

    def __call__(self, *, has_painted: bool) -> None:
        """Handle one limited painting."""


@dataclasses.dataclass
class PaintLimits:
    """Limits of the brush of a case, shared by all views.

    ``image`` is the channel ``(D, H, W)`` whose intensities are compared, ``intensity_range`` the
    range that can be painted, ``reference_label`` a label that is copied instead of one value.
    ``on_limited`` is called after each limited painting with whether anything was painted.
    ``history_stepped`` is emitted after an undo or redo in any of the views.
    """

    history_stepped = Signal()

    image: Array
    intensity_range: tuple[float, float] | None = None
    reference_label: LabelArray | None = None
    on_limited: OnLimited | None = None


class CaseLabels(ExtensibleLabels):
    """Labels of a scan; structures are painted only where intensities are within ``limits``.

    Painting background and erasing are never limited, so that errors can always be removed.

    Parameters
    ----------
    image : (D, H, W), the channel whose intensities are compared
    read_only : the label cannot be edited
    """

    def __init__(
        self, data: Any, *, image: Array, read_only: bool = False, **settings: Any
    ) -> None:
        self.is_read_only = read_only
        super().__init__(data, **settings)
        self.limits = PaintLimits(image)

    def show_case(self, data: Any, image: Array) -> None:
        """Show another case's label and scan, and clear the undo history.

        Undoing earlier edits would write into the wrong label.
        """
        self.clear_history()
        self.limits.image, self.limits.reference_label = image, None
        self.data = data

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
            return super().paint_mask(data, mask, value, region)
        has_painted = None
        reference = self.limits.reference_label[region]
        with self.block_history():  # one step of undo, however many structures
            for structure in np.unique(reference[mask]).tolist():
                structure_mask = np.asarray(mask) & (reference == structure)
                value_painted = super().paint_mask(data, structure_mask, structure, region)
                has_painted = (
                    value_painted
                    if has_painted is None
                    else has_painted | (False if value_painted is None else value_painted)
                )
        return has_painted

    # ---- The brush in millimeters ------------------------------------------------------------

    @property
    def brush_mm(self) -> float:
        """Diameter of the brush."""
        return float(2 * np.floor(self.brush_size / 2) + 1) * self.finest_painted_spacing

    @brush_mm.setter
    def brush_mm(self, diameter: float) -> None:
        # napari's brush of size n is 2 floor(n / 2) + 1 of the finest painted voxels wide.
        self.brush_size = max(2 * round((diameter / self.finest_painted_spacing - 1) / 2), 1)
