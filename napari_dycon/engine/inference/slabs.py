"""A scan cut along its first axis, where memory does not suffice for the outputs of all of it.

The outputs of all members for a whole scan take many times the memory of the scan. In slabs only
the mask and the two maps are kept of all of it. Slabs reach into each other by up to a patch, so
that the network sees of every voxel what surrounds it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Arrays of class probabilities, float32, at once: on the prepared grid (outputs of both networks,
# added up and divided) and on the scan's own (mean, entropies and their parts).
PREPARED_COPIES, OWN_COPIES = 6, 6
RESULT_BYTES = 9  # of a voxel: uint8 mask, two float32 maps
USABLE_FRACTION = 0.75  # of the free memory; the rest is for windows, writing, other programs


class Slab(NamedTuple):
    """Rows ``start`` to ``stop`` of the scan, predicted from ``first`` to ``last`` of its grid.

    ``first`` and ``last`` count rows of the prepared grid.
    """

    start: int
    stop: int
    first: int
    last: int


def plan_slabs(
    shape: Sequence[int],
    prepared: Sequence[int],
    *,
    classes: int,
    margin: int,
    free: int | None,
    scale: float = 1.0,
) -> list[Slab]:
    """Cut a scan into as few slabs as fit into memory.

    Parameters
    ----------
    shape : (D, H, W) of the scan's own grid
    prepared : (d, h, w) of the grid that the network sees
    classes : of the network, with the background
    margin : rows of the prepared grid that a slab is predicted beyond its own, where that fits
    free : bytes of memory, ``None`` where it is not known
    scale : of the largest view that a scan is seen in

    Raises
    ------
    MemoryError
        Not even one row fits.
    """
    depth = shape[0]
    whole = [Slab(0, depth, 0, prepared[0])]
    if free is None:
        return whole
    left = USABLE_FRACTION * free - RESULT_BYTES * math.prod(shape)
    row = 4 * classes * OWN_COPIES * math.prod(shape[1:])
    seen_row = 4 * classes * PREPARED_COPIES * math.prod(prepared[1:]) * max(scale, 1.0) ** 3
    ratio = prepared[0] / depth
    if row * depth + seen_row * prepared[0] <= left:
        return whole
    for around in (margin, margin // 4, 1):
        rows = int((left - 2 * (around + 1) * seen_row) / (row + ratio * seen_row))
        if rows >= min(around, depth) or (around == 1 and rows >= 1):
            break
    else:
        raise MemoryError("out of memory: the outputs for a scan do not fit")
    count = -(-depth // rows)
    edges = [round(number * depth / count) for number in range(count + 1)]
    return [
        Slab(
            start,
            stop,
            max(math.floor(start * ratio) - around - 1, 0),
            min(math.ceil(stop * ratio) + around + 1, prepared[0]),
        )
        for start, stop in itertools.pairwise(edges)
    ]


def resize_slab(part: Tensor, slab: Slab, shape: Sequence[int], prepared_depth: int) -> Tensor:
    """Rows ``(C, stop - start, H, W)`` of a scan from the outputs for a slab of its prepared grid.

    They are the rows that trilinear interpolation of outputs for the whole scan would give.

    Parameters
    ----------
    part : (C, last - first, h, w)
    shape : (D, H, W) of the scan's own grid
    """
    ratio = prepared_depth / shape[0]
    rows = torch.arange(slab.start, slab.stop, device=part.device, dtype=torch.float32)
    places = ((rows + 0.5) * ratio - 0.5).clamp(0, prepared_depth - 1)
    low = places.floor().long()
    share = (places - low)[None, :, None, None]
    high = (low + 1).clamp(max=prepared_depth - 1)
    found = part[:, low - slab.first]
    if share.any():
        found = torch.lerp(found, part[:, high - slab.first], share)
    if tuple(found.shape[2:]) == tuple(shape[1:]):
        return found
    size = (found.shape[1], shape[1], shape[2])
    return F.interpolate(found[None], size=size, mode="trilinear", align_corners=False)[0]
