"""Boxes of voxels: the smallest around what changed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Box = tuple[slice, slice, slice]


def changed_box(changed: npt.NDArray[np.bool_]) -> Box | None:
    """Smallest box that holds all of a mask; ``None`` where there is nothing."""
    spans = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        hits = np.flatnonzero(changed.any(axis=others))
        if not len(hits):
            return None
        spans.append(slice(int(hits[0]), int(hits[-1]) + 1))
    d, h, w = spans
    return d, h, w
