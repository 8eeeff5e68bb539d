"""Places where a prediction is unsure, in the order worth looking at.

High uncertainty often surrounds an organ as one connected shell, of which a single place would tell
nothing. So a place is a ball of ``REACH_MM``, about what a look at it shows: the one that holds
most uncertainty comes first, its uncertainty counts as seen, and so on. Separate small regions come
out as one place each, as connected components would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

REACH_MM = 5.0  # radius of a place; 3 to 10 were measured
SMALLEST = 4  # voxels; single noisy voxels are no place to go to
CELLS = 4.0  # cells of the search grid to a radius
LEAST_MASS = 0.05  # of the first place's mass; what is less is not worth a click

Map = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class HotSpot:
    """A ball of high uncertainty.

    ``center`` is the most uncertain inner voxel ``(d, h, w)`` of it, ``mass`` the sum of its
    uncertainty that no place before it held, ``voxels`` how many those are.
    """

    center: tuple[int, int, int]
    mass: float
    voxels: int


def find_hot_spots(
    uncertainty: Map,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    threshold: float | None = None,
    most: int = 30,
) -> list[HotSpot]:
    """Places of high uncertainty, the heaviest first.

    Parameters
    ----------
    uncertainty : (D, H, W), in [0, 1]
    spacing : in mm
    threshold : by default half of the map's 99.9 % quantile, and at least 0.1
    most : how many places at most
    """
    if threshold is None:
        threshold = max(0.5 * float(np.quantile(uncertainty, 0.999)), 0.1)
    left = np.where(uncertainty >= threshold, uncertainty, 0.0).astype(np.float32)
    if not left.any():
        return []
    whole = left.copy()
    grid = _Grid(left, spacing)
    spots: list[HotSpot] = []
    first = 0.0
    for _ in range(2 * most):  # some turn out to be specks
        box, inside = grid.heaviest()
        unseen = np.where(inside, left[box], 0.0)
        mass, voxels = float(unseen.sum()), int(np.count_nonzero(unseen))
        first = first or mass
        if len(spots) == most or mass <= LEAST_MASS * first:
            break
        if voxels >= SMALLEST:
            inner = np.where(unseen > 0, _smoothed(whole, box), -1.0)
            best = np.unravel_index(int(np.argmax(inner)), inner.shape)
            d, h, w = (int(b) + part.start for b, part in zip(best, box, strict=True))
            spots.append(HotSpot((d, h, w), mass, voxels))
        left[box][inside] = 0.0
        grid.update(left, box)
    return sorted(spots, key=lambda spot: -spot.mass)


def _smoothed(values: Map, box: tuple[slice, ...]) -> Map:
    """Means of 3 x 3 x 3 voxels in a box of a map.

    So a center lies in the thick of its region and not on one noisy voxel.
    """
    wide = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in box)
    inner = tuple(
        slice(part.start - around.start, part.stop - around.start)
        for part, around in zip(box, wide, strict=True)
    )
    smooth: Map = ndimage.uniform_filter(values[wide], 3)[inner]
    return smooth


class _Grid:
    """Coarse sums of a map, and how much a ball around each cell holds."""

    def __init__(self, values: Map, spacing: Sequence[float]) -> None:
        self.spacing = spacing
        self.shape = values.shape
        self.factor = [max(round(REACH_MM / CELLS / s), 1) for s in spacing]
        cell = [s * f for s, f in zip(spacing, self.factor, strict=True)]
        self.reach = [math.ceil(REACH_MM / c) for c in cell]
        axes = np.ogrid[tuple(slice(-r, r + 1) for r in self.reach)]
        distance = sum((a * c) ** 2 for a, c in zip(axes, cell, strict=True))
        self.ball = np.asarray(distance <= REACH_MM**2, dtype=np.float32)
        self.cells = self._sums(values)
        self.held = _ball_sums(self.cells, self.ball)

    def heaviest(self) -> tuple[tuple[slice, ...], npt.NDArray[np.bool_]]:
        """Box of voxels around the place that holds most, and which of them the ball holds."""
        cell = np.unravel_index(int(np.argmax(self.held)), self.held.shape)
        middle = [(int(c) + 0.5) * f - 0.5 for c, f in zip(cell, self.factor, strict=True)]
        box = tuple(
            slice(max(math.ceil(m - REACH_MM / s), 0), min(math.floor(m + REACH_MM / s) + 1, n))
            for m, s, n in zip(middle, self.spacing, self.shape, strict=True)
        )
        axes = np.ogrid[box]
        distance = sum(
            ((a - m) * s) ** 2 for a, m, s in zip(axes, middle, self.spacing, strict=True)
        )
        return box, np.asarray(distance <= REACH_MM**2)

    def update(self, values: Map, box: tuple[slice, ...]) -> None:
        """Take over what changed inside a box of voxels."""
        changed = tuple(
            slice(part.start // f, -(-part.stop // f))
            for part, f in zip(box, self.factor, strict=True)
        )
        whole = tuple(
            slice(part.start * f, part.stop * f)
            for part, f in zip(changed, self.factor, strict=True)
        )
        self.cells[changed] = self._sums(values[whole])
        around, source, inner = [], [], []
        for part, r, n in zip(changed, self.reach, self.cells.shape, strict=True):
            start, stop = max(part.start - r, 0), min(part.stop + r, n)
            begin, end = max(start - r, 0), min(stop + r, n)
            around.append(slice(start, stop))
            source.append(slice(begin, end))
            inner.append(slice(start - begin, stop - begin))
        near = _ball_sums(self.cells[tuple(source)], self.ball)
        self.held[tuple(around)] = near[tuple(inner)]

    def _sums(self, values: Map) -> npt.NDArray[np.float32]:
        sums = values
        for axis, f in enumerate(self.factor):
            sums = np.add.reduceat(sums, np.arange(0, sums.shape[axis], f), axis=axis)
        return np.asarray(sums, dtype=np.float32)


def _ball_sums(cells: Map, ball: Map) -> npt.NDArray[np.float32]:
    """Sum of the cells in a ball around each; nothing lies outside of them.

    By Fourier transforms: balls of hundreds of cells in millions of places took a minute. Only
    where there is anything, which is an organ of a scan.
    """
    held = np.zeros(cells.shape, np.float32)
    used = ndimage.find_objects(cells > 0, max_label=1)[0]
    if used is None:
        return held
    around = tuple(
        slice(max(part.start - n // 2, 0), min(part.stop + n // 2, size))
        for part, n, size in zip(used, ball.shape, cells.shape, strict=True)
    )
    part = cells[around]
    full = [a + b - 1 for a, b in zip(part.shape, ball.shape, strict=True)]
    sizes = [fft.next_fast_len(n, real=True) for n in full]
    product = fft.rfftn(part, sizes) * fft.rfftn(ball, sizes)
    sums = fft.irfftn(product, sizes)
    middle = tuple(slice(b // 2, b // 2 + a) for a, b in zip(part.shape, ball.shape, strict=True))
    held[around] = sums[middle]
    return held
