"""Profile of annotation and uncertainty over the slices of a case."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_dycon.annotation.coverage import annotated_fraction
from napari_dycon.core.types import LabelArray

MIN_UNCERTAINTY = 0.2  # lower values are background and would dominate the mean
MIN_RANGE = 0.05  # of the highest slice: smaller differences are not stretched further


@dataclass(frozen=True)
class SliceProfile:
    """One value per slice along ``axis``.

    Attributes
    ----------
    annotated_fractions : share of annotated voxels, 0 to 1
    uncertainty : mean of the notable values of each slice, counting others as 0; ``None`` without
        a prediction
    """

    axis: int
    annotated_fractions: npt.NDArray[np.float64]
    uncertainty: npt.NDArray[np.float64] | None

    @property
    def curve(self) -> npt.NDArray[np.float64] | None:
        """Uncertainty from 0 in the most certain slice to 1 in the least certain one.

        Slices of a young network differ little; from 0 on, their curve would be a flat line.
        """
        if self.uncertainty is None:
            return None
        lowest, highest = float(self.uncertainty.min()), float(self.uncertainty.max())
        return (self.uncertainty - lowest) / max(highest - lowest, MIN_RANGE * highest, 1e-12)


def compute_slice_profile(
    label: LabelArray, uncertainty: npt.NDArray[np.float32] | None, axis: int
) -> SliceProfile:
    """Compute the profile of a label and an optional uncertainty map ``(D, H, W)``."""
    means = None
    if uncertainty is not None:
        other_axes = tuple(a for a in range(3) if a != axis)
        notable = np.where(uncertainty >= MIN_UNCERTAINTY, uncertainty, 0.0)
        means = notable.mean(axis=other_axes, dtype=np.float64)
    return SliceProfile(axis, annotated_fraction(label, axis), means)
