"""The band around what was predicted or drawn, and the score of a case in it; numpy alone.

Over a whole image, countless easy background voxels would drown what matters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_dycon.core.types import Array, Mask

MARGIN_MM = (
    3.0  # how far the band reaches beyond the foreground, at least one voxel along each axis
)


def mean_foreground_uncertainty(
    prediction: Array, uncertainty: Array, spacing_mm: Sequence[float]
) -> float:
    """Mean uncertainty in the band around what was predicted; needs no reference.

    Where nothing was predicted it is the mean over the whole image.
    """
    foreground = prediction != 0
    region = dilate_mm(foreground, spacing_mm) if foreground.any() else np.ones_like(foreground)
    return float(np.mean(uncertainty[region], dtype=np.float64))


def dilate_mm(mask: Mask, spacing_mm: Sequence[float]) -> Mask:
    """Dilate a mask (D, H, W) by ``REFINE_MARGIN_MM`` along each axis, with a box."""
    dilated = np.array(mask, dtype=np.bool_)
    for axis, spacing in enumerate(spacing_mm):
        line = np.moveaxis(dilated, axis, 0)
        original = line.copy()
        for shift in range(1, min(max(1, round(MARGIN_MM / float(spacing))), len(line) - 1) + 1):
            line[shift:] |= original[:-shift]
            line[:-shift] |= original[shift:]
    return dilated
