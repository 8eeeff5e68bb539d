"""Windows over a scan: few, somewhat larger than the training patches, without padding.

A scan is cut into as few equal windows as possible, each of the size that then just covers it, so
that a voxel is computed a few times at most. MONAI's sliding window blends and stitches them.

This file runs with torch and MONAI alone: an exported MONAI bundle takes it along as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from monai.inferers import sliding_window_inference
from torch import Tensor

Shape = tuple[int, int, int]

# Of a training patch's side: how long a window may be, and how far neighbors reach into each other.
# Group norms learn their statistics on patches: over much larger windows they shift.
MAX_WINDOW_SIDE = 1.5
OVERLAP_SIDE = 0.5


class Windows(NamedTuple):
    """Size ``(D, H, W)`` of all windows, and how many of them lie along each axis."""

    size: Shape
    counts: Shape


def plan_windows(
    shape: Sequence[int], patch: Sequence[int], *, max_side: float = MAX_WINDOW_SIDE
) -> Windows:
    """Cut a scan into the fewest equal windows.

    Parameters
    ----------
    shape : (D, H, W) of the scan
    patch : (D, H, W) that the network was trained on
    max_side : the longest side of a window, in sides of the patch
    """
    sizes, counts = [], []
    for length, side in zip(shape, patch, strict=True):
        longest = max(int(side * max_side), 1)
        overlap = min(int(side * OVERLAP_SIDE), longest // 2)
        count = 1 if length <= longest else -(-(length - overlap) // (longest - overlap))
        counts.append(count)
        sizes.append(-(-(length + (count - 1) * overlap) // count))
    return Windows((sizes[0], sizes[1], sizes[2]), (counts[0], counts[1], counts[2]))


@torch.inference_mode()
def predict_windows(
    image: Tensor,
    predictor: Callable[[Tensor], Tensor],
    windows: Windows,
    *,
    device: torch.device,
    stitch_device: torch.device,
    batch: int = 1,
) -> Tensor:
    """Outputs ``(channels, D, H, W)`` of a network for a scan, from its windows.

    Parameters
    ----------
    image : (C, D, H, W)
    predictor : ``(B, C, d, h, w)`` on ``device`` to ``(B, channels, d, h, w)``
    stitch_device : where the outputs of all windows are added up
    batch : windows computed at once
    """
    if windows.counts == (1, 1, 1):
        return predictor(image[None].to(device))[0].to(stitch_device)
    # MONAI rounds the distance between windows down, which half a voxel more makes exact.
    overlap = [
        0.0 if count == 1 else 1.0 - (-(-(length - size) // (count - 1)) + 0.5) / size
        for length, size, count in zip(image.shape[1:], windows.size, windows.counts, strict=True)
    ]
    stitched = sliding_window_inference(
        image[None],
        roi_size=windows.size,
        sw_batch_size=batch,
        predictor=predictor,
        overlap=overlap,
        mode="gaussian",
        sw_device=device,
        device=stitch_device,
    )
    assert isinstance(stitched, Tensor)
    return stitched[0]
