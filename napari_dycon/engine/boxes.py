"""Means over cubes of voxels."""

from __future__ import annotations

from torch import Tensor


def box_mean(array: Tensor, radius: int) -> Tensor:
    """Mean over the cube around each voxel of ``(..., D, H, W)``, smaller by the radius all around.

    Sums of shifted views: on a CPU several times as fast as pooling or convolution.
    """
    for axis in (-3, -2, -1):
        length = array.shape[axis] - 2 * radius
        total = array.narrow(axis, 0, length).clone()
        for start in range(1, 2 * radius + 1):
            total += array.narrow(axis, start, length)
        array = total
    return array / (2 * radius + 1) ** 3
