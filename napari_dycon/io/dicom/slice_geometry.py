"""Geometry of the slices of a series: check for a regular grid, and its affine.

Positions and directions are DICOM's: LPS, in mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_dycon.core.wording import format_count
from napari_dycon.errors import GeometryError, IrregularSlicesError
from napari_dycon.io.volume import LPS_TO_RAS

Vector = npt.NDArray[np.float64]
MIN_SLICE_DISTANCE_MM = 0.01  # closer slices are at the same position
# Positions have two or three decimals; larger deviations are irregular.
SPACING_TOLERANCE_FRACTION, SPACING_TOLERANCE_MM = 0.02, 0.02  # of the spacing, and at least
TILT_TOLERANCE_PIXELS, TILT_TOLERANCE_DEGREES = (
    0.5,
    0.1,
)  # sideways over the whole stack, and from one to the next
RESAMPLE_HINT = (
    "Expected upright slices of regular spacing. Resample them when opening the series (option "
    "--resample of commands), leave the series out, or export the original one again."
)


@dataclass(frozen=True)
class Slice:
    """One image of a series.

    ``position`` is the center of its first pixel; ``row_direction`` and ``column_direction`` are
    unit vectors in which column and row numbers increase; ``pixel_mm`` is the distance between
    columns and between rows. ``frame`` counts the images of a multi-frame file.
    ``dimension_values`` distinguish images at the same position (echo, time, ...).
    ``value_encoding`` is the lowest and highest possible stored value, rescale slope and intercept;
    ``None`` if the header does not define them.
    """

    path: Path
    position: Vector
    row_direction: Vector
    column_direction: Vector
    pixel_mm: tuple[float, float]
    columns: int
    rows: int
    frame: int | None = None
    dimension_values: tuple[str, ...] = ()
    value_encoding: tuple[float, float, float, float] | None = None

    @property
    def normal(self) -> Vector:
        """Unit vector perpendicular to the slice."""
        normal: Vector = np.cross(self.row_direction, self.column_direction)
        return normal

    @property
    def location_mm(self) -> float:
        """Position of the slice along its normal in mm."""
        return float(self.position @ self.normal)

    @property
    def name(self) -> str:
        """File name, with the number of the image if there are several; for messages."""
        return self.path.name if self.frame is None else f"{self.path.name} ({self.frame + 1})"


def sort_slices(slices: Sequence[Slice]) -> list[Slice]:
    """Sort along the normal; file names and instance numbers are unreliable."""
    return sorted(slices, key=lambda s: s.location_mm)


def compute_slice_spacing(slices: Sequence[Slice]) -> float:
    """Compute the median distance of neighboring slices in mm."""
    gaps = np.diff([s.location_mm for s in slices])
    return float(np.median(gaps)) if len(gaps) else 0.0


def check_regular_spacing(slices: Sequence[Slice], series: str) -> None:
    """Reject sorted slices that are not a regular grid.

    Raises
    ------
    IrregularSlicesError
        They are irregular or tilted, or some are missing; resampling helps.
    GeometryError
        Several are at the same position, which is ambiguous.
    """
    locations = np.array([s.location_mm for s in slices])
    gaps = np.diff(locations)
    spacing = float(np.median(gaps))
    if (duplicates := np.flatnonzero(gaps < MIN_SLICE_DISTANCE_MM)).size:
        one, other = slices[duplicates[0]], slices[duplicates[0] + 1]
        raise GeometryError(
            f"{series} has {len(duplicates) + 1} or more images at the same position, such as "
            f"{one.name} "
            f"and {other.name}; expected one image per slice. Move copies and other series away."
        )
    tilt = _measure_tilt(slices)
    if tilt is not None:
        raise IrregularSlicesError(
            f"{series} was acquired with a tilted gantry: from {slices[0].name} to "
            f"{slices[-1].name} the slices are shifted by {tilt[1]:.1f} mm ({tilt[0]:.1f}°)"
            f"{_describe_irregular_gaps(gaps, spacing)}",
            RESAMPLE_HINT,
        )
    irregular = np.flatnonzero(
        np.abs(gaps - spacing) > max(SPACING_TOLERANCE_FRACTION * spacing, SPACING_TOLERANCE_MM)
    )
    if irregular.size:
        first = irregular[0]
        pair = f"{slices[first].name} and {slices[first + 1].name}"
        missing = np.round(gaps[irregular] / spacing) - 1
        if np.all(missing >= 1) and np.allclose(
            gaps[irregular] / spacing, missing + 1, atol=2 * SPACING_TOLERANCE_FRACTION
        ):
            raise IrregularSlicesError(
                f"{series} lacks {format_count(int(missing.sum()), 'slice')}, the first between "
                f"{pair}: these are {gaps[first]:.2f} mm apart, the others {spacing:.2f} mm",
                RESAMPLE_HINT,
            )
        raise IrregularSlicesError(
            f"{series} has irregular slices, {gaps.min():.2f} to {gaps.max():.2f} mm apart: "
            f"{gaps[first]:.2f} mm between {pair} and mostly {spacing:.2f} mm",
            RESAMPLE_HINT,
        )
    lateral_offsets = _compute_lateral_offsets(slices, locations)
    if (max_offset := float(lateral_offsets.max())) > TILT_TOLERANCE_PIXELS * min(
        slices[0].pixel_mm
    ):
        raise IrregularSlicesError(
            f"{series} has slices shifted by up to {max_offset:.1f} mm, such as "
            f"{slices[int(lateral_offsets.argmax())].name}",
            RESAMPLE_HINT,
        )


def _describe_irregular_gaps(gaps: Vector, spacing: float) -> str:
    if np.all(
        np.abs(gaps - spacing) <= max(SPACING_TOLERANCE_FRACTION * spacing, SPACING_TOLERANCE_MM)
    ):
        return ""
    return f", and they are {gaps.min():.2f} to {gaps.max():.2f} mm apart"


def _measure_tilt(slices: Sequence[Slice]) -> tuple[float, float] | None:
    """Measure the gantry tilt in degrees and mm; ``None`` if it is negligible."""
    displacement = slices[-1].position - slices[0].position
    along_normal = float(displacement @ slices[0].normal)
    sideways = float(np.linalg.norm(displacement - along_normal * slices[0].normal))
    degrees = float(np.degrees(np.arctan2(sideways, abs(along_normal))))
    if (
        sideways <= TILT_TOLERANCE_PIXELS * min(slices[0].pixel_mm)
        or degrees <= TILT_TOLERANCE_DEGREES
    ):
        return None
    return degrees, sideways


def _compute_lateral_offsets(slices: Sequence[Slice], locations: Vector) -> Vector:
    """Compute each slice's lateral distance from the line between first and last, in mm."""
    displacements = np.array([s.position for s in slices]) - slices[0].position
    residuals = displacements - np.outer(
        (locations - locations[0]) / (locations[-1] - locations[0]), displacements[-1]
    )
    along_normal = np.outer(residuals @ slices[0].normal, slices[0].normal)
    offsets: Vector = np.linalg.norm(residuals - along_normal, axis=1)
    return offsets


def compute_affine(slices: Sequence[Slice]) -> Vector:
    """Compute the affine from (column, row, slice) to RAS+ mm of sorted, regular slices."""
    first, last = slices[0], slices[-1]
    step = (last.position - first.position) / (len(slices) - 1)
    return build_affine(first, first.position, step)


def build_affine(first: Slice, origin: Vector, step: Vector) -> Vector:
    """Build the affine to RAS+ mm of a grid in the plane of a slice; arguments are in LPS mm."""
    affine = np.eye(4)
    affine[:3, 0] = first.row_direction * first.pixel_mm[0]
    affine[:3, 1] = first.column_direction * first.pixel_mm[1]
    affine[:3, 2] = step
    affine[:3, 3] = origin
    ras: Vector = LPS_TO_RAS @ affine
    return ras
