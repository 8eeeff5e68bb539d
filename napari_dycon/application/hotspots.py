"""Hotspots: regions of high uncertainty of a prediction, ranked by their mass.

High uncertainty often surrounds an organ as one connected shell, so that connected components would
be useless. A hotspot is instead a ball of ``RADIUS_MM``: the ball with the largest sum of
uncertainty comes first, its voxels are removed, and so on. Small separate regions give one hotspot
each, as connected components would.

In each connected region, the search ends where a ball has less than half of the uncertainty of the
first one: after that come pieces of the thin border that surrounds every structure, in almost any
number. Only voxels above a threshold count, which is the one below which maps are not shown, or
higher: half of the scan's highest uncertainty, and so high that they are at most a fiftieth of the
scan. A young network is uncertain almost everywhere: which voxels are above such a threshold is
partly chance then, and a hotspot needs half of the uncertainty of the first one of the scan.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from napari_dycon.core.boxes import bounding_box
from napari_dycon.core.types import Box, Mask

RADIUS_MM = 5.0  # radius of a hotspot; 3 to 10 were measured
MIN_VOXELS = 4  # single noisy voxels are ignored
CELLS_PER_RADIUS = 4.0  # cells of the search grid per radius
MIN_MASS_FRACTION = 0.05  # relative to the first hotspot; smaller ones are ignored
MIN_REGION_FRACTION = 0.5  # relative to the first hotspot of the same connected region
MAX_BALLS = 4  # examined at most, for each hotspot to find
MIN_THRESHOLD = 0.3  # below it maps are not shown by default
MAX_SEARCHED_FRACTION = 0.02  # of the voxels of a scan

Map = npt.NDArray[np.floating[Any]]


@dataclasses.dataclass(frozen=True)
class Hotspot:
    """A ball of high uncertainty.

    ``center`` is its most uncertain inner voxel ``(d, h, w)``, ``mass`` the sum of uncertainty not
    covered by earlier hotspots, ``voxels`` their number.
    """

    center: tuple[int, int, int]
    mass: float
    voxels: int

    @property
    def mean_uncertainty(self) -> float:
        """Mean uncertainty of its voxels."""
        return self.mass / self.voxels


def find_hotspots(
    uncertainty: Map,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    threshold: float | None = None,
    max_count: int = 30,
    minimum: float = MIN_THRESHOLD,
) -> list[Hotspot]:
    """Find regions of high uncertainty, the largest mass first.

    Parameters
    ----------
    uncertainty : (D, H, W), in [0, 1]
    spacing : in mm
    threshold : of the voxels that count; by default as described at the top of this file
    max_count : maximum number of hotspots
    minimum : of the default threshold
    """
    median, searched, highest = (
        float(value)
        for value in np.quantile(uncertainty, (0.5, 1.0 - MAX_SEARCHED_FRACTION, 0.999))
    )
    if threshold is None:
        threshold = max(0.5 * highest, searched, minimum)
    is_uncertain_everywhere = median >= MIN_THRESHOLD
    min_fraction = MIN_REGION_FRACTION if is_uncertain_everywhere else MIN_MASS_FRACTION
    is_notable = uncertainty >= threshold
    box = _find_searched_box(is_notable, spacing)
    if box is None:
        return []
    notable = np.where(is_notable[box], uncertainty[box], 0.0).astype(np.float32)
    hotspots = _find_balls(notable, spacing, min_fraction, max_count)
    origin = tuple(extent.start for extent in box)
    moved = [
        dataclasses.replace(
            spot, center=tuple(c + o for c, o in zip(spot.center, origin, strict=True))
        )
        for spot in hotspots
    ]
    return sorted(moved, key=lambda spot: -spot.mass)


def _find_searched_box(is_notable: Mask, spacing: Sequence[float]) -> Box | None:
    """Return a box around all balls with notable voxels; it begins with a cell of the grid."""
    margin = [
        math.ceil(RADIUS_MM / s) + n
        for s, n in zip(spacing, _find_cell_shape(spacing), strict=True)
    ]
    box = bounding_box(is_notable, margin)
    if box is None:
        return None
    return tuple(
        slice(extent.start // n * n, extent.stop)
        for extent, n in zip(box, _find_cell_shape(spacing), strict=True)
    )


def _find_balls(
    notable: Map, spacing: Sequence[float], min_fraction: float, max_count: int
) -> list[Hotspot]:
    """Find the balls with the largest sums of a map, as described at the top of this file."""
    remaining = notable.copy()
    grid = _MassGrid(remaining, spacing)
    hotspots: list[Hotspot] = []
    first_mass = 0.0
    regions, _ = ndimage.label(notable > 0, structure=np.ones((3, 3, 3)))
    region_masses: dict[int, float] = {}  # of the first hotspot in each region
    for _ in range(MAX_BALLS * max_count):  # some are too small and skipped
        box, in_ball = grid.find_densest_ball()
        ball_values = np.where(in_ball, remaining[box], 0.0)
        mass, voxels = float(ball_values.sum()), int(np.count_nonzero(ball_values))
        first_mass = first_mass or mass
        if len(hotspots) == max_count or mass <= min_fraction * first_mass:
            break
        candidates = np.where(ball_values > 0, _smooth_box(notable, box), -1.0)
        peak = np.unravel_index(int(np.argmax(candidates)), candidates.shape)
        d, h, w = (int(b) + extent.start for b, extent in zip(peak, box, strict=True))
        region = int(regions[d, h, w])
        if mass < MIN_REGION_FRACTION * region_masses.setdefault(region, mass):
            remaining[regions == region] = 0.0  # the rest of the region is its border
            grid = _MassGrid(remaining, spacing)
            continue
        if voxels >= MIN_VOXELS:
            hotspots.append(Hotspot((d, h, w), mass, voxels))
        remaining[box][in_ball] = 0.0
        grid.update(remaining, box)
    return hotspots


def _smooth_box(values: Map, box: Box) -> Map:
    """Compute means of 3 x 3 x 3 voxels in a box of a map.

    This keeps centers inside their region and not on one noisy voxel.
    """
    padded = tuple(slice(max(extent.start - 1, 0), extent.stop + 1) for extent in box)
    inner = tuple(
        slice(extent.start - around.start, extent.stop - around.start)
        for extent, around in zip(box, padded, strict=True)
    )
    smooth: Map = ndimage.uniform_filter(values[padded], 3)[inner]
    return smooth


def _find_cell_shape(spacing: Sequence[float]) -> list[int]:
    """Return the size of a cell of the search grid, in voxels."""
    return [max(round(RADIUS_MM / CELLS_PER_RADIUS / s), 1) for s in spacing]


class _MassGrid:
    """Coarse sums of a map, and the sum in a ball around each cell."""

    def __init__(self, values: Map, spacing: Sequence[float]) -> None:
        self.spacing = spacing
        self.shape = values.shape
        self.cell_shape = _find_cell_shape(spacing)
        cell_mm = [s * f for s, f in zip(spacing, self.cell_shape, strict=True)]
        self.radius_cells = [math.ceil(RADIUS_MM / c) for c in cell_mm]
        axes = np.ogrid[tuple(slice(-r, r + 1) for r in self.radius_cells)]
        squared_distance = sum((a * c) ** 2 for a, c in zip(axes, cell_mm, strict=True))
        self.ball = np.asarray(squared_distance <= RADIUS_MM**2, dtype=np.float32)
        self.cell_sums = self._sum_cells(values)
        self.ball_sums = _sum_in_balls(self.cell_sums, self.ball)

    def find_densest_ball(self) -> tuple[Box, Mask]:
        """Return the box around the ball with the largest sum, and the mask of the ball in it."""
        index = np.unravel_index(int(np.argmax(self.ball_sums)), self.ball_sums.shape)
        center = [(int(c) + 0.5) * f - 0.5 for c, f in zip(index, self.cell_shape, strict=True)]
        box = tuple(
            slice(max(math.ceil(m - RADIUS_MM / s), 0), min(math.floor(m + RADIUS_MM / s) + 1, n))
            for m, s, n in zip(center, self.spacing, self.shape, strict=True)
        )
        axes = np.ogrid[box]
        squared_distance = sum(
            ((a - m) * s) ** 2 for a, m, s in zip(axes, center, self.spacing, strict=True)
        )
        return box, np.asarray(squared_distance <= RADIUS_MM**2)

    def update(self, values: Map, box: Box) -> None:
        """Update the sums after values in a box of voxels changed."""
        changed_cells = tuple(
            slice(extent.start // f, -(-extent.stop // f))
            for extent, f in zip(box, self.cell_shape, strict=True)
        )
        changed_voxels = tuple(
            slice(extent.start * f, extent.stop * f)
            for extent, f in zip(changed_cells, self.cell_shape, strict=True)
        )
        self.cell_sums[changed_cells] = self._sum_cells(values[changed_voxels])
        affected, source, inner = [], [], []
        for extent, r, n in zip(
            changed_cells, self.radius_cells, self.cell_sums.shape, strict=True
        ):
            start, stop = max(extent.start - r, 0), min(extent.stop + r, n)
            begin, end = max(start - r, 0), min(stop + r, n)
            affected.append(slice(start, stop))
            source.append(slice(begin, end))
            inner.append(slice(start - begin, stop - begin))
        sums = _sum_in_balls(self.cell_sums[tuple(source)], self.ball)
        self.ball_sums[tuple(affected)] = sums[tuple(inner)]

    def _sum_cells(self, values: Map) -> npt.NDArray[np.float32]:
        sums = values
        for axis, f in enumerate(self.cell_shape):
            planes = np.moveaxis(sums, axis, 0)
            cells = planes[::f].copy()
            for offset in range(1, f):  # several times as fast as np.add.reduceat
                part = planes[offset::f]
                cells[: len(part)] += part
            sums = np.moveaxis(cells, 0, axis)
        return np.ascontiguousarray(sums, dtype=np.float32)


def _sum_in_balls(cells: Map, ball: Map) -> npt.NDArray[np.float32]:
    """Sum the cells in a ball around each cell, with zeros outside.

    Uses Fourier transforms, since direct summation took a minute, and only the bounding box of
    nonzero cells.
    """
    ball_sums = np.zeros(cells.shape, np.float32)
    padded = bounding_box(cells > 0, [n // 2 for n in ball.shape])
    if padded is None:
        return ball_sums
    cropped = cells[padded]
    full_shape = [a + b - 1 for a, b in zip(cropped.shape, ball.shape, strict=True)]
    fft_shape = [fft.next_fast_len(n, real=True) for n in full_shape]
    product = fft.rfftn(cropped, fft_shape) * fft.rfftn(ball, fft_shape)
    sums = fft.irfftn(product, fft_shape)
    valid = tuple(slice(b // 2, b // 2 + a) for a, b in zip(cropped.shape, ball.shape, strict=True))
    ball_sums[padded] = sums[valid]
    return ball_sums
