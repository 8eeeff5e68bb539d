"""Annotated fraction of the slices of a scan."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_dycon.core.types import UNANNOTATED, LabelArray


def annotated_fraction(label: LabelArray, axis: int) -> npt.NDArray[np.float64]:
    """Compute the fraction of annotated voxels in each slice along an axis."""
    other_axes = tuple(a for a in range(3) if a != axis)
    fractions: npt.NDArray[np.float64] = np.mean(label != UNANNOTATED, axis=other_axes)
    return fractions
