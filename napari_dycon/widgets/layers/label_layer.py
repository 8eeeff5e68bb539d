"""The label layer of a case: napari's own, whose brush may be limited to a range of gray values."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Labels

from napari_dycon.core.types import UNANNOTATED


@dataclasses.dataclass
class PaintLimits:
    """What the brush of a case may do, in every view of it.

    ``image`` is the channel ``(D, H, W)`` whose gray values count, ``intensity_range`` those that
    are reached, ``reference_label`` what is painted in place of one value.
    """

    image: npt.NDArray[Any]
    intensity_range: tuple[float, float] | None = None
    reference_label: npt.NDArray[np.uint8] | None = None


class CaseLabels(Labels):
    """Labels over a scan; painting a structure reaches only gray values within ``limits``.

    Painting background, and taking annotations away, is never limited: what is wrong can always be
    removed.

    Parameters
    ----------
    image : (D, H, W), the channel whose gray values count
    read_only : the label is only looked at
    """

    def __init__(
        self, data: Any, *, image: npt.NDArray[Any], read_only: bool = False, **settings: Any
    ) -> None:
        self._is_read_only = read_only
        super().__init__(data, **settings)
        self.limits = PaintLimits(image)

    def show_case(self, data: Any, image: npt.NDArray[Any]) -> None:
        """Take over another case's label and scan; what was done to the case before is no history.

        Undoing it would write into a label that it does not belong to.
        """
        self._staged_history.clear()
        self._undo_history.clear()
        self._redo_history.clear()
        self.limits.image, self.limits.reference_label = image, None
        self.data = data

    def write_region(
        self, region: tuple[slice, slice, slice], values: npt.NDArray[np.uint8]
    ) -> None:
        """Write a box of voxels as one step of the history; the caller refreshes the view."""
        old_values = self.data[region].copy()
        self.data[region] = values
        self._save_history((region, old_values, values.copy()))

    def _reset_editable(self) -> None:
        super()._reset_editable()
        if self._is_read_only:
            self.editable = False

    @property
    def _type_string(self) -> str:
        return "labels"  # napari chooses writers and icons by it, not by class

    def _apply_mask_to_data(
        self,
        data: Any,
        mask: Any,
        new_label: int,
        volume_slice: tuple[slice, ...],
    ) -> Any:
        """Paint; the one way by which brush, bucket and polygon of napari change voxels."""
        if (
            self.limits.reference_label is None
            and self.limits.intensity_range is not None
            and new_label not in (0, UNANNOTATED)
        ):
            low, high = self.limits.intensity_range
            intensities = self.limits.image[volume_slice]
            mask = np.asarray(mask) & (intensities >= low) & (intensities <= high)
        if self.limits.reference_label is None:
            return super()._apply_mask_to_data(data, mask, new_label, volume_slice)
        has_painted = None
        reference = self.limits.reference_label[volume_slice]
        with self.block_history():  # one step of undo, however many structures
            for value in np.unique(reference[mask]).tolist():
                value_mask = np.asarray(mask) & (reference == value)
                value_painted = super()._apply_mask_to_data(data, value_mask, value, volume_slice)
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
        return float(2 * np.floor(self.brush_size / 2) + 1) * self._finest_spacing_mm

    @brush_mm.setter
    def brush_mm(self, diameter: float) -> None:
        # napari's brush of size n is 2 floor(n / 2) + 1 of the finest painted voxels wide.
        self.brush_size = max(2 * round((diameter / self._finest_spacing_mm - 1) / 2), 1)

    @property
    def _finest_spacing_mm(self) -> float:
        painted_axes = self._slice_input.order[-self.n_edit_dimensions :]
        return float(min(abs(self.scale[axis]) for axis in painted_axes))
