"""Morphological post-processing: smoothing, hole filling, largest connected component.

Other structures are never overwritten. Removed voxels become background; only background and
unannotated voxels are added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage

from napari_dycon.core.boxes import bounding_box
from napari_dycon.core.counting import count_values
from napari_dycon.core.types import UNANNOTATED, LabelArray, Mask


def smooth(label: LabelArray, value: int, spacing: Sequence[float], sigma_mm: float) -> LabelArray:
    """Smooth the surface of a structure with a Gaussian of standard deviation ``sigma_mm``.

    The threshold is chosen so that the volume is approximately preserved.
    """
    sigma = [sigma_mm / s for s in spacing]

    def smooth_mask(mask: Mask) -> Mask:
        soft = ndimage.gaussian_filter(mask.astype(np.float32), sigma)
        voxels = int(mask.sum())
        level = max(float(np.partition(soft.reshape(-1), -voxels)[-voxels]), 1e-3)
        smoothed: Mask = soft >= level
        return smoothed

    margin = [int(np.ceil(3 * s)) + 1 for s in sigma]
    return _apply_to_structure(label, value, smooth_mask, margin)


def fill_holes(label: LabelArray, value: int) -> LabelArray:
    """Fill the holes of a structure, except voxels of other structures."""

    def fill_mask(mask: Mask) -> Mask:
        filled: Mask = ndimage.binary_fill_holes(mask)
        return filled

    return _apply_to_structure(label, value, fill_mask, [1, 1, 1])


def keep_largest_component(label: LabelArray, value: int) -> LabelArray:
    """Keep the largest connected component (26 neighbors) of a structure."""

    def select_largest(mask: Mask) -> Mask:
        components, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
        if count < 2:
            return mask
        largest: Mask = components == 1 + np.argmax(count_values(components, count + 1)[1:])
        return largest

    return _apply_to_structure(label, value, select_largest, [1, 1, 1])


def _apply_to_structure(
    label: LabelArray, value: int, operation: Callable[[Mask], Mask], margin: Sequence[int]
) -> LabelArray:
    """Apply a mask operation in the bounding box of a structure, extended by ``margin`` voxels."""
    result = label.copy()
    box = bounding_box(label == value, margin)
    if box is None:
        return result
    part = result[box]  # a view
    before = part == value
    after = operation(before)
    part[before & ~after] = 0
    part[after & ((part == 0) | (part == UNANNOTATED))] = value
    return result
