"""Foreground margin masks and the uncertainty score of a case.

Scores over a whole image would be dominated by easy background voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_dycon.core.types import Array, Mask

MARGIN_MM = 3.0  # width of the margin, at least one voxel along each axis


def mean_foreground_uncertainty(
    prediction: Array, uncertainty: Array, spacing_mm: Sequence[float]
) -> float:
    """Compute the mean uncertainty in the margin of the predicted foreground.

    If no foreground was predicted, it is the mean over the whole image.
    """
    foreground = prediction != 0
    region = dilate_mm(foreground, spacing_mm) if foreground.any() else np.ones_like(foreground)
    return float(np.mean(uncertainty[region], dtype=np.float64))


def dilate_mm(mask: Mask, spacing_mm: Sequence[float]) -> Mask:
    """Dilate a mask (D, H, W) by ``MARGIN_MM`` along each axis, with a box."""
    dilated = np.array(mask, dtype=np.bool_)
    for axis, spacing in enumerate(spacing_mm):
        line = np.moveaxis(dilated, axis, 0)
        original = line.copy()
        for shift in range(1, min(max(1, round(MARGIN_MM / float(spacing))), len(line) - 1) + 1):
            line[shift:] |= original[:-shift]
            line[:-shift] |= original[shift:]
    return dilated
