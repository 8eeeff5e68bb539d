"""Annotated fraction of the slices of a scan, and number of slices with annotation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from napari_dycon.core.types import UNANNOTATED, LabelArray


def annotated_fraction(label: LabelArray, axis: int) -> npt.NDArray[np.float64]:
    """Compute the fraction of annotated voxels in each slice along an axis."""
    other_axes = tuple(a for a in range(3) if a != axis)
    fractions: npt.NDArray[np.float64] = np.mean(label != UNANNOTATED, axis=other_axes)
    return fractions


class AnnotatedSlices(NamedTuple):
    """Number of slices with annotation, of all slices along an axis."""

    annotated: int
    total: int

    def __str__(self) -> str:
        """Describe the slices: "3 of 88 slices"."""
        return f"{self.annotated} of {self.total} slices"


def count_annotated_slices(label: LabelArray) -> AnnotatedSlices:
    """Count the slices with annotation along the axis that the label was drawn in slices of.

    That is the axis along which the smallest fraction of the slices has annotation.
    """
    is_annotated = label != UNANNOTATED
    in_planes = is_annotated.any(axis=0)
    candidates = [
        AnnotatedSlices(int(np.count_nonzero(present)), len(present))
        for present in (
            is_annotated.any(axis=(1, 2)),
            in_planes.any(axis=1),
            in_planes.any(axis=0),
        )
    ]
    return min(candidates, key=lambda one: one.annotated / max(one.total, 1))
