"""Windows over a scan: as large as the training patches or a little larger, without padding.

A scan is cut into as few equal windows as possible, spread evenly. MONAI's sliding window blends
and stitches them.

This file runs with torch and MONAI alone: an exported MONAI bundle takes it along as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from monai.inferers import sliding_window_inference
from torch import Tensor

Shape = tuple[int, int, int]

OVERLAP_SIDE = 0.25  # of a training patch's side, by which neighbors reach into each other at least


class Windows(NamedTuple):
    """Size ``(D, H, W)`` of all windows, and how many of them lie along each axis."""

    size: Shape
    counts: Shape


def plan_windows(shape: Sequence[int], patch: Sequence[int], *, side: float) -> Windows:
    """Cut a scan into the fewest windows of a size.

    Parameters
    ----------
    shape : (D, H, W) of the scan
    patch : (D, H, W) that the network was trained on
    side : of a window, in sides of the patch; where the scan is shorter, it has the scan's
    """
    sizes, counts = [], []
    for length, patch_side in zip(shape, patch, strict=True):
        longest = max(int(patch_side * side), 1)
        overlap = min(int(patch_side * OVERLAP_SIDE), longest // 2)
        count = 1 if length <= longest else -(-(length - overlap) // (longest - overlap))
        counts.append(count)
        sizes.append(min(length, longest))
    return Windows((sizes[0], sizes[1], sizes[2]), (counts[0], counts[1], counts[2]))


@torch.inference_mode()
def predict_windows(
    image: Tensor,
    predictor: Callable[[Tensor], Tensor],
    windows: Windows,
    *,
    device: torch.device,
    stitch_device: torch.device,
    batch_size: int = 1,
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
        0.0 if count == 1 else max(1.0 - (-(-(length - size) // (count - 1)) + 0.5) / size, 0.0)
        for length, size, count in zip(image.shape[1:], windows.size, windows.counts, strict=True)
    ]
    stitched = sliding_window_inference(
        image[None],
        roi_size=windows.size,
        sw_batch_size=batch_size,
        predictor=predictor,
        overlap=overlap,
        mode="gaussian",
        sw_device=device,
        device=stitch_device,
    )
    assert isinstance(stitched, Tensor)
    return stitched[0]
