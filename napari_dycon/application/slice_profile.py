"""What the slices of a case hold along an axis: annotation and uncertainty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_dycon.annotation.coverage import annotated_fraction
from napari_dycon.core.types import LabelArray

MIN_UNCERTAINTY = 0.2  # lower entropies are the background's, and would drown the rest


@dataclass(frozen=True)
class SliceProfile:
    """One value a slice across ``axis``."""

    axis: int
    annotated_fractions: npt.NDArray[np.float64]  # share of voxels, 0 to 1
    uncertainty: npt.NDArray[np.float64] | None  # mean of what is notable, 1 at its highest


def compute_slice_profile(
    label: LabelArray, uncertainty: npt.NDArray[np.float32] | None, axis: int
) -> SliceProfile:
    """Profile of a label and, where there is one, of a map ``(D, H, W)`` across an axis."""
    curve = None
    if uncertainty is not None:
        other_axes = tuple(a for a in range(3) if a != axis)
        notable = np.where(uncertainty >= MIN_UNCERTAINTY, uncertainty, 0.0)
        curve = notable.sum(axis=other_axes, dtype=np.float64)
        curve = curve / max(float(curve.max()), 1e-12)
    return SliceProfile(axis, annotated_fraction(label, axis), curve)
