"""Sums and means over cubes of voxels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def local_mean(array: Tensor, radius: int) -> Tensor:
    """Compute the mean over the cube around each voxel of ``(..., D, H, W)``.

    The result is smaller by the radius on each side. Sums of shifted views are several times as
    fast on a CPU as pooling or convolution.
    """
    return local_sum(array, radius) / (2 * radius + 1) ** 3


def local_sum(array: Tensor, radius: int) -> Tensor:
    """Compute the sum over the cube around each voxel; the shape is that of ``local_mean``."""
    for axis in (-3, -2, -1):
        array = _window_sum(array, axis, 2 * radius + 1)
    return array


def padded_local_sum(array: Tensor, radius: int) -> Tensor:
    """Compute local sums of ``(..., D, H, W)`` in the same shape, with zeros outside the array."""
    for axis in (-3, -2, -1):
        padding = [0] * 6
        padding[2 * (-1 - axis) : 2 * (-1 - axis) + 2] = radius, radius
        array = _window_sum(F.pad(array, padding), axis, 2 * radius + 1)
    return array


def _window_sum(array: Tensor, axis: int, width: int) -> Tensor:
    """Sum ``width`` neighbors along an axis, composed from sums over 1, 2, 4, ... neighbors."""
    length = array.shape[axis] - width + 1
    partial, size = array, 1  # sums over ``size`` neighbors
    total, n_summed = None, 0  # sums over the first ``n_summed`` of the ``width``
    while True:
        if width & size:
            shifted = partial.narrow(axis, n_summed, length)
            total = shifted if total is None else total + shifted
            n_summed += size
        if n_summed == width:
            return total if total is not None else array
        partial = partial.narrow(axis, 0, partial.shape[axis] - size) + partial.narrow(
            axis, size, partial.shape[axis] - size
        )
        size *= 2
