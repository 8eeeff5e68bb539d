"""Slices of a series in space: whether they make an even grid, and how they are made into one.

Positions and directions are DICOM's, LPS in mm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_dycon.errors import GeometryError, UnevenSlicesError

Array = npt.NDArray[Any]
Vector = npt.NDArray[np.float64]
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SAME_MM = 0.01  # slices closer than this lie in one place
# Positions are written with two or three decimals; more than this is uneven.
UNEVEN_SHARE, UNEVEN_MM = 0.02, 0.02  # of the spacing, and at least
TILT_PIXELS, TILT_DEGREES = 0.5, 0.1  # sideways over the whole stack, and from one to the next
RESAMPLE = (
    "Expected even, upright slices. Have them resampled when you open the series (commands take "
    "--resample), leave it out, or get the original one from the scanner."
)


@dataclass(frozen=True)
class Slice:
    """One image of a series.

    ``position`` is the center of its first pixel; ``along_row`` and ``along_column`` are the unit
    vectors in which column and row numbers grow; ``pixel_mm`` is the distance between columns and
    between rows. ``frame`` counts the images of a multi-frame file. ``repeat`` is what tells
    images of the same place apart (echo, time, ...). ``values`` are the lowest and highest that its
    pixels can have, as they are stored, and slope and intercept of what they stand for; ``None``
    where the header does not tell.
    """

    path: Path
    position: Vector
    along_row: Vector
    along_column: Vector
    pixel_mm: tuple[float, float]
    columns: int
    rows: int
    frame: int | None = None
    repeat: tuple[str, ...] = ()
    values: tuple[float, float, float, float] | None = None

    @property
    def normal(self) -> Vector:
        """Unit vector across the slice."""
        normal: Vector = np.cross(self.along_row, self.along_column)
        return normal

    @property
    def height(self) -> float:
        """Where the slice lies along its normal, in mm."""
        return float(self.position @ self.normal)

    @property
    def name(self) -> str:
        """File, and the image's number in it where there are several; to tell a person."""
        return self.path.name if self.frame is None else f"{self.path.name} ({self.frame + 1})"


def in_order(slices: Sequence[Slice]) -> list[Slice]:
    """Sort along the normal; names and numbers of files mean nothing."""
    return sorted(slices, key=lambda s: s.height)


def spacing_of(slices: Sequence[Slice]) -> float:
    """Median distance of neighboring slices in mm."""
    gaps = np.diff([s.height for s in slices])
    return float(np.median(gaps)) if len(gaps) else 0.0


def check_even(slices: Sequence[Slice], series: str) -> None:
    """Refuse slices, in order, that are no even grid.

    Raises
    ------
    UnevenSlicesError
        They are uneven, some are missing, or they are tilted; resampling helps.
    GeometryError
        Some lie in the same place, and nobody knows which one is meant.
    """
    heights = np.array([s.height for s in slices])
    gaps = np.diff(heights)
    spacing = float(np.median(gaps))
    if (same := np.flatnonzero(gaps < SAME_MM)).size:
        one, other = slices[same[0]], slices[same[0] + 1]
        raise GeometryError(
            f"{series} has {len(same) + 1} or more images in the same place, such as {one.name} "
            f"and {other.name}; expected one image a slice. Move copies and other series away."
        )
    tilt = _tilt(slices)
    if tilt is not None:
        raise UnevenSlicesError(
            f"{series} was taken with a tilted gantry: from {slices[0].name} to {slices[-1].name} "
            f"the slices move {tilt[1]:.1f} mm sideways ({tilt[0]:.1f}°)"
            f"{_uneven_too(gaps, spacing)}. {RESAMPLE}"
        )
    odd = np.flatnonzero(np.abs(gaps - spacing) > max(UNEVEN_SHARE * spacing, UNEVEN_MM))
    if odd.size:
        first = odd[0]
        pair = f"{slices[first].name} and {slices[first + 1].name}"
        missing = np.round(gaps[odd] / spacing) - 1
        if np.all(missing >= 1) and np.allclose(
            gaps[odd] / spacing, missing + 1, atol=2 * UNEVEN_SHARE
        ):
            raise UnevenSlicesError(
                f"{series} lacks {int(missing.sum())} slice(s), the first between {pair}: they lie "
                f"{gaps[first]:.2f} mm apart, the others {spacing:.2f} mm. {RESAMPLE}"
            )
        raise UnevenSlicesError(
            f"{series} has uneven slices: {gaps.min():.2f} to {gaps.max():.2f} mm apart, such as "
            f"{gaps[first]:.2f} mm between {pair} and mostly {spacing:.2f} mm. {RESAMPLE}"
        )
    beside = _beside(slices, heights)
    if (most := float(beside.max())) > TILT_PIXELS * min(slices[0].pixel_mm):
        raise UnevenSlicesError(
            f"{series} has slices that lie up to {most:.1f} mm beside the others, such as "
            f"{slices[int(beside.argmax())].name}. {RESAMPLE}"
        )


def _uneven_too(gaps: Vector, spacing: float) -> str:
    if np.all(np.abs(gaps - spacing) <= max(UNEVEN_SHARE * spacing, UNEVEN_MM)):
        return ""
    return f", and they lie {gaps.min():.2f} to {gaps.max():.2f} mm apart"


def _tilt(slices: Sequence[Slice]) -> tuple[float, float] | None:
    """Degrees and millimeters by which slices move sideways, or ``None`` when they hardly do."""
    way = slices[-1].position - slices[0].position
    across = float(way @ slices[0].normal)
    sideways = float(np.linalg.norm(way - across * slices[0].normal))
    degrees = float(np.degrees(np.arctan2(sideways, abs(across))))
    if sideways <= TILT_PIXELS * min(slices[0].pixel_mm) or degrees <= TILT_DEGREES:
        return None
    return degrees, sideways


def _beside(slices: Sequence[Slice], heights: Vector) -> Vector:
    """How far each slice lies beside the line from the first to the last one, in mm."""
    way = np.array([s.position for s in slices]) - slices[0].position
    rest = way - np.outer((heights - heights[0]) / (heights[-1] - heights[0]), way[-1])
    across = np.outer(rest @ slices[0].normal, slices[0].normal)
    apart: Vector = np.linalg.norm(rest - across, axis=1)
    return apart


def affine_of(slices: Sequence[Slice]) -> Vector:
    """Index (column, row, slice) to RAS+ mm of even slices in order."""
    first, last = slices[0], slices[-1]
    step = (last.position - first.position) / (len(slices) - 1)
    return _affine(first, first.position, step)


def _affine(first: Slice, origin: Vector, step: Vector) -> Vector:
    affine = np.eye(4)
    affine[:3, 0] = first.along_row * first.pixel_mm[0]
    affine[:3, 1] = first.along_column * first.pixel_mm[1]
    affine[:3, 2] = step
    affine[:3, 3] = origin
    ras: Vector = LPS_TO_RAS @ affine
    return ras


def resampled(
    slices: Sequence[Slice], read: Callable[[int], Array], dtype: np.dtype[Any]
) -> tuple[Array, Vector]:
    """Interpolate slices in order to an even, upright grid, linearly.

    Parameters
    ----------
    read : gives slice number n as (rows, columns)
    dtype : of the result

    Returns
    -------
    Voxels (slices, rows, columns), wide enough for slices that move sideways, and the affine from
    (column, row, slice) to RAS+ mm. What no slice covers has the lowest value of the first slice.
    """
    from scipy import ndimage  # a bare machine to train on has none

    first = slices[0]
    heights = np.array([s.height for s in slices]) - first.height
    count = max(round(float(heights[-1]) / spacing_of(slices)), 1) + 1
    spacing = float(heights[-1]) / (count - 1)  # from the first slice to the last one, both whole
    aside = np.array(
        [
            [
                (s.position - first.position) @ first.along_row / first.pixel_mm[0],
                (s.position - first.position) @ first.along_column / first.pixel_mm[1],
            ]
            for s in slices
        ]
    )
    # Less than what counts as moved is how positions are written; it must not cost an edge.
    aside[:, np.ptp(aside, axis=0) <= TILT_PIXELS] = 0
    low = np.floor(aside.min(axis=0))
    more = np.ceil(aside.max(axis=0) - low).astype(int)
    shape = (first.rows + int(more[1]), first.columns + int(more[0]))
    fill = float(read(0).min())
    kept: dict[int, Array] = {}

    def upright(number: int) -> Array:
        if number not in kept:
            plane = np.full(shape, np.nan, np.float32)
            plane[: first.rows, : first.columns] = read(number)
            shift = aside[number, ::-1] - low[::-1]
            kept[number] = ndimage.shift(plane, shift, order=1, mode="constant", cval=np.nan)
            for old in [n for n in kept if n < number - 1]:
                del kept[old]
        return kept[number]

    result = np.empty((count, *shape), dtype)
    for target in range(count):
        height = min(target * spacing, float(heights[-1]))
        below = int(np.clip(np.searchsorted(heights, height, "right") - 1, 0, len(slices) - 2))
        share = (height - heights[below]) / (heights[below + 1] - heights[below])
        one, other = upright(below), upright(below + 1)
        plane = (1 - share) * one + share * other
        alone = np.isnan(plane)  # where only one of two tilted slices reaches, or none
        plane[alone] = np.where(np.isnan(one), other, one)[alone]
        plane[np.isnan(plane)] = fill
        result[target] = plane if dtype.kind == "f" else np.rint(plane)
    origin = (
        first.position
        + low[0] * first.pixel_mm[0] * first.along_row
        + low[1] * first.pixel_mm[1] * first.along_column
    )
    return result, _affine(first, origin, spacing * first.normal)
