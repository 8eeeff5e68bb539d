"""Sliding windows over a scan in several sizes, and mirrored where the network was meant for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.inferers import Inferer, sliding_window_inference
from torch import Tensor, nn


class ScaledWindows(Inferer):  # type: ignore[misc]
    """Mean over views of a scan (as it is, resized, mirrored), each by MONAI's sliding window.

    Parameters
    ----------
    patch : window ``(D, H, W)`` in voxels
    stride : multiple that the sides of a window must be of
    scales : further sizes in which the scan is seen; a CPU leaves further views out for large scans
    mirror : whether it is also seen with left and right (the last axis) exchanged
    overlap, quick_overlap : share of neighbouring windows, where all sizes are seen and where not
    most_patches : voxels, in patches, up to which a scan is not large
    whole_factor : scans up to this many patches' voxels are seen in one window
    """

    def __init__(
        self,
        patch: Sequence[int],
        stride: int,
        scales: Sequence[float],
        mirror: bool,
        overlap: float,
        quick_overlap: float,
        most_patches: float,
        whole_factor: float,
    ) -> None:
        super().__init__()
        self.patch = tuple(patch)
        self.stride = stride
        self.scales = tuple(scales)
        self.mirror = mirror
        self.overlap = overlap
        self.quick_overlap = quick_overlap
        self.most_patches = most_patches
        self.whole_factor = whole_factor

    @torch.no_grad()
    def __call__(
        self, inputs: Tensor, network: nn.Module, size: Sequence[int] | None = None, **_: Any
    ) -> Tensor:
        """Probabilities ``(1, classes, *size)`` of one scan ``(1, channels, D, H, W)``, on the CPU.

        ``size`` is the grid to answer on, over the same field of view; by default the scan's.
        """
        device = next(network.parameters()).device
        shape = tuple(inputs.shape[2:])
        size = tuple(size or shape)
        quick = device.type == "cpu" and (
            math.prod(shape) / math.prod(self.patch) > self.most_patches
        )
        views = [(1.0, False)]
        if not quick:
            views += [(scale, False) for scale in self.scales]
            views += [(1.0, True)] if self.mirror else []
        total: Tensor | None = None
        for scale, mirrored in views:
            seen = tuple(max(round(n * scale), 1) for n in shape)
            view = _resized(inputs, seen)
            stitched = sliding_window_inference(
                view.flip(-1) if mirrored else view,
                roi_size=self._window(seen),
                sw_batch_size=1 if device.type == "cpu" else 4,
                predictor=network,
                overlap=self.quick_overlap if quick else self.overlap,
                mode="gaussian",
                padding_mode="replicate",
                sw_device=device,
                device=torch.device("cpu"),
            )
            assert isinstance(stitched, Tensor)
            part = _resized(stitched.flip(-1) if mirrored else stitched, size)
            total = part if total is None else total.add_(part)
        assert total is not None
        return total / len(views)

    def _window(self, shape: Sequence[int]) -> tuple[int, ...]:
        whole = tuple(-(-n // self.stride) * self.stride for n in shape)
        fits = math.prod(whole) <= self.whole_factor * math.prod(self.patch)
        return whole if fits else self.patch


def _resized(array: Tensor, size: tuple[int, ...]) -> Tensor:
    if tuple(array.shape[2:]) == size:
        return array
    return F.interpolate(array, size=size, mode="trilinear", align_corners=False)
