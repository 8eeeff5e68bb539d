"""Slabs of a scan along its first axis, for scans whose outputs exceed the memory.

The outputs of all ensemble members for a scan take many times its memory. With slabs, only the mask
and the two maps are kept for the whole scan. Slabs overlap by up to a patch, so that the network
sees the surroundings of every voxel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Float32 arrays of class probabilities held at once: on the prepared grid (outputs of both
# networks, sum and quotient) and on the scan's own grid (mean, entropies and their terms).
PREPARED_COPIES, SCAN_COPIES = 6, 6
RESULT_BYTES_PER_VOXEL = 9  # uint8 mask, two float32 maps
USABLE_MEMORY_FRACTION = (
    0.75  # of the free memory; the rest is for windows, writing and other programs
)


class Slab(NamedTuple):
    """Rows ``start`` to ``stop`` of the scan, and the rows of the prepared grid to predict.

    ``prepared_start`` and ``prepared_stop`` count rows of the prepared grid.
    """

    start: int
    stop: int
    prepared_start: int
    prepared_stop: int


def plan_slabs(
    shape: Sequence[int],
    prepared_shape: Sequence[int],
    *,
    n_classes: int,
    margin: int,
    free_bytes: int | None,
    max_scale: float = 1.0,
) -> list[Slab]:
    """Split a scan into as few slabs as fit into memory.

    Parameters
    ----------
    shape : (D, H, W) of the scan's own grid
    prepared_shape : (d, h, w) of the prepared grid
    n_classes : number of classes of the network, with the background
    margin : rows of the prepared grid by which the prediction of a slab extends beyond it
    free_bytes : free memory, ``None`` if unknown
    max_scale : largest test-time scale

    Raises
    ------
    MemoryError
        Not even one row fits.
    """
    depth = shape[0]
    single_slab = [Slab(0, depth, 0, prepared_shape[0])]
    if free_bytes is None:
        return single_slab
    usable_bytes = USABLE_MEMORY_FRACTION * free_bytes - RESULT_BYTES_PER_VOXEL * math.prod(shape)
    row_bytes = 4 * n_classes * SCAN_COPIES * math.prod(shape[1:])
    prepared_row_bytes = (
        4 * n_classes * PREPARED_COPIES * math.prod(prepared_shape[1:]) * max(max_scale, 1.0) ** 3
    )
    ratio = prepared_shape[0] / depth
    if row_bytes * depth + prepared_row_bytes * prepared_shape[0] <= usable_bytes:
        return single_slab
    for overlap in (margin, margin // 4, 1):
        rows = int(
            (usable_bytes - 2 * (overlap + 1) * prepared_row_bytes)
            / (row_bytes + ratio * prepared_row_bytes)
        )
        if rows >= min(overlap, depth) or (overlap == 1 and rows >= 1):
            break
    else:
        raise MemoryError("out of memory: the outputs for a scan do not fit")
    count = -(-depth // rows)
    edges = [round(number * depth / count) for number in range(count + 1)]
    return [
        Slab(
            start,
            stop,
            max(math.floor(start * ratio) - overlap - 1, 0),
            min(math.ceil(stop * ratio) + overlap + 1, prepared_shape[0]),
        )
        for start, stop in itertools.pairwise(edges)
    ]


def resize_slab(outputs: Tensor, slab: Slab, shape: Sequence[int], prepared_depth: int) -> Tensor:
    """Resize the outputs for a slab to rows ``(C, stop - start, H, W)`` of the scan's own grid.

    The result equals trilinear interpolation of the outputs for the whole scan.

    Parameters
    ----------
    outputs : (C, prepared_stop - prepared_start, h, w)
    shape : (D, H, W) of the scan's own grid
    """
    ratio = prepared_depth / shape[0]
    rows = torch.arange(slab.start, slab.stop, device=outputs.device, dtype=torch.float32)
    positions = ((rows + 0.5) * ratio - 0.5).clamp(0, prepared_depth - 1)
    low = positions.floor().long()
    fraction = (positions - low)[None, :, None, None]
    high = (low + 1).clamp(max=prepared_depth - 1)
    resized = outputs[:, low - slab.prepared_start]
    if fraction.any():
        resized = torch.lerp(resized, outputs[:, high - slab.prepared_start], fraction)
    if tuple(resized.shape[2:]) == tuple(shape[1:]):
        return resized
    size = (resized.shape[1], shape[1], shape[2])
    return F.interpolate(resized[None], size=size, mode="trilinear", align_corners=False)[0]
