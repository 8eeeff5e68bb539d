"""What a scan looks like to the network: one vector a scan, to tell alike from unlike scans.

The bottleneck's channels of the teacher, averaged over the scan and over what it predicts as
foreground. Two scans are alike when their vectors lie close (see ``suggestions.py``). They come
from the windows of a prediction, so that they cost next to nothing there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from napari_dycon.engine.losses.feature_grid import mean_of_cells


class FeatureSum:
    """Sums of the bottleneck's features over the windows of a scan."""

    def __init__(self) -> None:
        self._inside: Tensor | None = None
        self._everywhere: Tensor | None = None
        self._weight = torch.zeros(())
        self._cells = 0

    def add(self, bottleneck: Tensor, foreground: Tensor) -> None:
        """Add windows.

        Parameters
        ----------
        bottleneck : (B, C, d, h, w), float32
        foreground : (B, D, H, W), probability of any structure
        """
        d, h, w = bottleneck.shape[2:]
        share = mean_of_cells(foreground[:, None], (d, h, w))
        self._accumulate(
            (share * bottleneck).sum(dim=(0, 2, 3, 4)), bottleneck.sum(dim=(0, 2, 3, 4)),
            share.sum(), share.numel(),
        )  # fmt: skip

    def merge(self, other: FeatureSum) -> None:
        """Add the windows of another sum."""
        if other._inside is not None and other._everywhere is not None:
            self._accumulate(other._inside, other._everywhere, other._weight, other._cells)

    def _accumulate(self, inside: Tensor, everywhere: Tensor, weight: Tensor, cells: int) -> None:
        if self._inside is None or self._everywhere is None:
            self._inside, self._everywhere, self._weight = inside, everywhere, weight
        else:
            self._inside = self._inside + inside
            self._everywhere = self._everywhere + everywhere
            self._weight = self._weight + weight
        self._cells += cells

    def to_vector(self) -> list[float]:
        """Twice as many values as the bottleneck has channels; none without a window."""
        if self._inside is None or self._everywhere is None:
            return []
        vector = torch.cat(
            [self._inside / self._weight.clamp(min=1e-6), self._everywhere / max(self._cells, 1)]
        )
        return [round(float(value), 5) for value in vector.cpu()]
