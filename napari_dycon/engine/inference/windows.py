"""Sliding windows over a scan without padding: as large as training patches or slightly larger.

A scan is covered by as few equal windows as possible, evenly spaced. MONAI's sliding window
inference blends and stitches them.

This file needs only torch and MONAI: exported MONAI bundles contain a copy of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from monai.inferers import sliding_window_inference
from torch import Tensor

Shape = tuple[int, int, int]

OVERLAP_SIDE = 0.25  # minimum overlap of neighbors, in sides of the training patch


class Windows(NamedTuple):
    """Size ``(D, H, W)`` of all windows, and their number along each axis."""

    size: Shape
    counts: Shape


def plan_windows(
    shape: Sequence[int], patch: Sequence[int], *, side: float, overlap_side: float = OVERLAP_SIDE
) -> Windows:
    """Cover a scan with the fewest windows of a size.

    Parameters
    ----------
    shape : (D, H, W) of the scan
    patch : (D, H, W) of training patches
    side : side of a window in sides of the patch, limited to the scan
    overlap_side : minimum overlap of neighbors, in sides of the patch
    """
    sizes, counts = [], []
    for length, patch_side in zip(shape, patch, strict=True):
        longest = max(int(patch_side * side), 1)
        overlap = min(int(patch_side * overlap_side), longest // 2)
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
    """Compute the outputs ``(channels, D, H, W)`` of a network for a scan, window by window.

    Parameters
    ----------
    image : (C, D, H, W)
    predictor : ``(B, C, d, h, w)`` on ``device`` to ``(B, channels, d, h, w)``
    stitch_device : where the outputs of all windows are blended
    batch_size : windows computed at once
    """
    if windows.counts == (1, 1, 1):
        return predictor(image[None].to(device))[0].to(stitch_device)
    # MONAI rounds the distance between windows down; adding half a voxel makes it exact.
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
