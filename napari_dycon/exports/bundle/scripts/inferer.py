"""Sliding-window inference at several scales, with optional mirroring."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from monai.inferers import Inferer
from torch import Tensor

from .ensemble import Ensemble
from .windows import plan_windows, predict_windows  # type: ignore[import-not-found]


class ScaledWindows(Inferer):  # type: ignore[misc]
    """Test-time augmentation: mean of predictions at several scales, optionally mirrored.

    Student and teacher predict alternate scales.

    Parameters
    ----------
    patch : training patch size ``(D, H, W)`` in voxels
    window_side : side of a window relative to the patch
    scales : scale factors
    mirror : whether to also predict the scan mirrored left to right (last axis)
    """

    def __init__(
        self, patch: Sequence[int], window_side: float, scales: Sequence[float], mirror: bool
    ) -> None:
        super().__init__()
        self.patch = tuple(patch)
        self.window_side = window_side
        self.scales = tuple(scales)
        self.mirror = mirror

    def __call__(
        self, inputs: Tensor, network: Ensemble, size: Sequence[int] | None = None, **_: Any
    ) -> Tensor:
        """Predict probabilities ``(1, classes, *size)`` of a scan ``(1, channels, D, H, W)``.

        The result is on the CPU. ``size`` is the output grid over the same field of view; by
        default that of the scan.
        """
        device = next(network.parameters()).device
        shape = tuple(inputs.shape[2:])
        size = tuple(size or shape)
        mirrors = (False, True) if self.mirror else (False,)
        views = list(itertools.product(mirrors, enumerate(self.scales)))
        total: Tensor | None = None
        for mirrored, (number, scale) in views:
            view_shape = tuple(max(round(n * scale), 1) for n in shape)
            view = _resize(inputs, view_shape)
            stitched = predict_windows(
                (view.flip(-1) if mirrored else view)[0],
                partial(network.predict_member, number),
                plan_windows(view_shape, self.patch, side=self.window_side),
                device=device,
                stitch_device=torch.device("cpu"),
            )[None]
            probabilities = _resize(stitched.flip(-1) if mirrored else stitched, size)
            total = probabilities if total is None else total + probabilities
        assert total is not None
        return total / len(views)


def _resize(array: Tensor, size: tuple[int, ...]) -> Tensor:
    if tuple(array.shape[2:]) == size:
        return array
    return F.interpolate(array, size=size, mode="trilinear", align_corners=False)
