"""Bounding boxes of masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_dycon.core.types import Box, Mask


def bounding_box(mask: Mask, margin: int | Sequence[int] = 0) -> Box | None:
    """Find the smallest box around a mask, extended by a margin and clipped to the array.

    Parameters
    ----------
    mask : array of any number of dimensions
    margin : in voxels, for all axes or for each one

    Returns
    -------
    One slice object per axis; ``None`` where the mask is empty.
    """
    margins = [margin] * mask.ndim if isinstance(margin, (int, np.integer)) else margin
    spans = []
    for axis, (size, extra) in enumerate(zip(mask.shape, margins, strict=True)):
        other_axes = tuple(other for other in range(mask.ndim) if other != axis)
        occupied = np.flatnonzero(mask.any(axis=other_axes))
        if not len(occupied):
            return None
        start, stop = int(occupied[0]) - extra, int(occupied[-1]) + 1 + extra
        spans.append(slice(max(start, 0), min(stop, size)))
    return tuple(spans)
