"""Profile of annotation and uncertainty over the slices of a case."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_dycon.annotation.coverage import annotated_fraction
from napari_dycon.core.types import LabelArray

MIN_UNCERTAINTY = 0.2  # lower values are background and would dominate the sum


@dataclass(frozen=True)
class SliceProfile:
    """One value per slice along ``axis``."""

    axis: int
    annotated_fractions: npt.NDArray[np.float64]  # share of voxels, 0 to 1
    uncertainty: npt.NDArray[np.float64] | None  # sum of notable values, scaled to a maximum of 1


def compute_slice_profile(
    label: LabelArray, uncertainty: npt.NDArray[np.float32] | None, axis: int
) -> SliceProfile:
    """Compute the profile of a label and an optional uncertainty map ``(D, H, W)``."""
    curve = None
    if uncertainty is not None:
        other_axes = tuple(a for a in range(3) if a != axis)
        notable = np.where(uncertainty >= MIN_UNCERTAINTY, uncertainty, 0.0)
        curve = notable.sum(axis=other_axes, dtype=np.float64)
        curve = curve / max(float(curve.max()), 1e-12)
    return SliceProfile(axis, annotated_fraction(label, axis), curve)
