"""Resampling of irregular or tilted slices to a regular grid.

Positions and directions are DICOM's: LPS, in mm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_dycon.core.types import Array
from napari_dycon.io.dicom.slice_geometry import (
    TILT_TOLERANCE_PIXELS,
    Slice,
    Vector,
    build_affine,
    compute_slice_spacing,
)


@dataclass(frozen=True)
class RegularGrid:
    """Target grid of a series, and the positions of its slices.

    ``locations`` of the slices, in mm, and ``spacing_mm`` of the grid are along the normal, from
    the first slice on; ``shifts`` ``(N, 2)`` of the slices are in rows and columns.
    """

    n_slices: int
    slice_shape: tuple[int, int]  # rows, columns
    plane_shape: tuple[int, int]  # of the grid, wide enough for shifted slices
    spacing_mm: float
    locations: Vector
    shifts: Vector
    affine: Vector  # (column, row, slice) to RAS+ mm


def plan_regular_grid(slices: Sequence[Slice]) -> RegularGrid:
    """Choose an upright grid from the first slice to the last one."""
    first = slices[0]
    locations = np.array([s.location_mm for s in slices]) - first.location_mm
    count = max(round(float(locations[-1]) / compute_slice_spacing(slices)), 1) + 1
    spacing = float(locations[-1]) / (count - 1)  # from the first slice to the last one
    offsets = np.array(
        [
            [
                (s.position - first.position) @ first.row_direction / first.pixel_mm[0],
                (s.position - first.position) @ first.column_direction / first.pixel_mm[1],
            ]
            for s in slices
        ]
    )
    # Smaller shifts are rounding of positions, and must not blur the edge.
    offsets[:, np.ptp(offsets, axis=0) <= TILT_TOLERANCE_PIXELS] = 0
    min_offset = np.floor(offsets.min(axis=0))
    padding = np.ceil(offsets.max(axis=0) - min_offset).astype(int)
    origin = (
        first.position
        + min_offset[0] * first.pixel_mm[0] * first.row_direction
        + min_offset[1] * first.pixel_mm[1] * first.column_direction
    )
    return RegularGrid(
        count,
        (first.rows, first.columns),
        (first.rows + int(padding[1]), first.columns + int(padding[0])),
        spacing,
        locations,
        offsets[:, ::-1] - min_offset[::-1],
        build_affine(first, origin, spacing * first.normal),
    )


class _ShiftedSlices:
    """Slices shifted to the planes of a grid, NaN outside of them; the last two are cached."""

    def __init__(self, read_slice: Callable[[int], Array], grid: RegularGrid) -> None:
        self._read_slice = read_slice
        self._grid = grid
        self._cache: dict[int, npt.NDArray[np.float32]] = {}

    def load(self, number: int) -> npt.NDArray[np.float32]:
        """Return slice ``number`` of the series as ``grid.plane_shape``."""
        from scipy import ndimage  # slow to import, and rarely needed

        if number not in self._cache:
            plane = np.full(self._grid.plane_shape, np.nan, np.float32)
            rows, columns = self._grid.slice_shape
            plane[:rows, :columns] = self._read_slice(number)
            shift = self._grid.shifts[number]
            self._cache[number] = ndimage.shift(plane, shift, order=1, mode="constant", cval=np.nan)
            for old in [n for n in self._cache if n < number - 1]:
                del self._cache[old]
        return self._cache[number]


def resample_slices(
    slices: Sequence[Slice], read_slice: Callable[[int], Array], dtype: np.dtype[Any]
) -> tuple[Array, Vector]:
    """Interpolate sorted slices linearly to a regular, upright grid.

    Parameters
    ----------
    read_slice : returns slice number n as (rows, columns)
    dtype : type of the result

    Returns
    -------
    voxels (slices, rows, columns), wide enough for shifted slices, and the affine from
    (column, row, slice) to RAS+ mm; voxels outside all slices have the minimum of the first slice
    """
    grid = plan_regular_grid(slices)
    fill = float(read_slice(0).min())
    shifted = _ShiftedSlices(read_slice, grid)
    locations = grid.locations
    result = np.empty((grid.n_slices, *grid.plane_shape), dtype)
    for target in range(grid.n_slices):
        location = min(target * grid.spacing_mm, float(locations[-1]))
        lower = int(np.clip(np.searchsorted(locations, location, "right") - 1, 0, len(slices) - 2))
        weight = (location - locations[lower]) / (locations[lower + 1] - locations[lower])
        lower_plane, upper_plane = shifted.load(lower), shifted.load(lower + 1)
        plane = (1 - weight) * lower_plane + weight * upper_plane
        is_missing = np.isnan(plane)  # covered by only one of two tilted slices, or by none
        plane[is_missing] = np.where(np.isnan(lower_plane), upper_plane, lower_plane)[is_missing]
        plane[np.isnan(plane)] = fill
        result[target] = plane if dtype.kind == "f" else np.rint(plane)
    return result, grid.affine
