"""Scan-level embeddings for case selection: one vector per scan.

The teacher's bottleneck channels, averaged over the scan and over the predicted foreground. Similar
scans have close vectors (``application/active_learning.py``). They are computed from the windows of
a prediction, at almost no cost.
"""

from __future__ import annotations

import torch
from torch import Tensor

from napari_dycon.engine.losses.feature_grid import block_mean


class FeatureSum:
    """Sums of bottleneck features over the windows of a scan."""

    def __init__(self) -> None:
        self._foreground_sum: Tensor | None = None
        self._total_sum: Tensor | None = None
        self._foreground_weight = torch.zeros(())
        self._n_locations = 0

    def add(self, bottleneck: Tensor, foreground: Tensor) -> None:
        """Add windows.

        Parameters
        ----------
        bottleneck : (B, C, d, h, w), float32
        foreground : (B, D, H, W), probability of any structure
        """
        d, h, w = bottleneck.shape[2:]
        foreground_fraction = block_mean(foreground[:, None], (d, h, w))
        self._accumulate(
            (foreground_fraction * bottleneck).sum(dim=(0, 2, 3, 4)),
            bottleneck.sum(dim=(0, 2, 3, 4)),
            foreground_fraction.sum(),
            foreground_fraction.numel(),
        )

    def merge(self, other: FeatureSum) -> None:
        """Add the windows of another sum."""
        if other._foreground_sum is not None and other._total_sum is not None:
            self._accumulate(
                other._foreground_sum,
                other._total_sum,
                other._foreground_weight,
                other._n_locations,
            )

    def _accumulate(
        self, foreground_sum: Tensor, total_sum: Tensor, weight: Tensor, n_locations: int
    ) -> None:
        if self._foreground_sum is None or self._total_sum is None:
            self._foreground_sum, self._total_sum, self._foreground_weight = (
                foreground_sum,
                total_sum,
                weight,
            )
        else:
            self._foreground_sum = self._foreground_sum + foreground_sum
            self._total_sum = self._total_sum + total_sum
            self._foreground_weight = self._foreground_weight + weight
        self._n_locations += n_locations

    def to_vector(self) -> list[float]:
        """Return twice as many values as the bottleneck has channels; empty without a window."""
        if self._foreground_sum is None or self._total_sum is None:
            return []
        vector = torch.cat(
            [
                self._foreground_sum / self._foreground_weight.clamp(min=1e-6),
                self._total_sum / max(self._n_locations, 1),
            ]
        )
        return [round(float(value), 5) for value in vector.cpu()]
