"""Which slices of a scan are annotated: the map that sparse labeling needs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_dycon.core.types import UNANNOTATED, LabelArray


def annotated_fraction(label: LabelArray, axis: int) -> npt.NDArray[np.float64]:
    """Share of annotated voxels of every slice across an axis, 0 to 1."""
    other_axes = tuple(a for a in range(3) if a != axis)
    fractions: npt.NDArray[np.float64] = np.mean(label != UNANNOTATED, axis=other_axes)
    return fractions
