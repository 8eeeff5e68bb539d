"""Volumes in the canonical orientation of the program.

Axes are ``(D, H, W)`` towards superior, posterior and left, so that axial slices are displayed in
radiological convention and slice numbers increase from feet to head. Files are reoriented when they
are read, by transposing and flipping only; oblique rotations stay in the affine. World coordinates
are RAS+ millimeters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel import orientations

from napari_dycon.core.types import Array

AXES = ("S", "P", "L")
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # its own inverse; DICOM and ITK use LPS
GRID_TOLERANCE_MM = 1e-3
INTENSITY_QUANTILES = (0.005, 0.995)  # robust to a few bright voxels
MAX_CHANNELS = 8  # of a scan; more in one file are time points


@dataclass(frozen=True)
class Source:
    """Source of a volume: everything needed to write results on the same grid.

    ``shape`` and ``affine`` (index to RAS+ mm) are those of the file; ``header`` is nibabel's.
    ``files`` are those of a DICOM series, sorted by the third index; they are empty for other
    formats, and for a series that was resampled.
    """

    path: Path | None
    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]
    header: Any | None = None
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Volume:
    """Voxels ``(D, H, W)`` or ``(C, D, H, W)`` and ``affine``, canonical index to RAS+ mm.

    ``notes`` are sentences for the user on decisions made while reading the file.
    """

    array: Array
    affine: npt.NDArray[np.float64]
    source: Source
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels ``(D, H, W)``."""
        d, h, w = self.array.shape[-3:]
        return d, h, w

    @property
    def channels(self) -> int:
        """Number of channels."""
        return 1 if self.array.ndim == 3 else int(self.array.shape[0])

    def grid_only(self) -> Volume:
        """Return the grid without voxels: all are 0 and take no memory."""
        return replace(self, array=np.broadcast_to(np.uint8(0), self.shape))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of neighboring voxels along D, H, W in millimeters."""
        z, y, x = (float(v) for v in np.linalg.norm(self.affine[:3, :3], axis=0))
        return z, y, x


def _reorientation(affine: npt.NDArray[np.float64]) -> Array:
    """Compute nibabel's orientation transform from a file's axes to the canonical ones."""
    return np.asarray(
        orientations.ornt_transform(nib.io_orientation(affine), orientations.axcodes2ornt(AXES))
    )


def to_canonical(
    array: Array, affine: npt.NDArray[np.float64]
) -> tuple[Array, npt.NDArray[np.float64]]:
    """Reorient ``(i, j, k)`` voxels to the canonical axes; lossless, may return a view."""
    transform = _reorientation(affine)
    reoriented = orientations.apply_orientation(array, transform)
    return reoriented, affine @ orientations.inv_ornt_aff(transform, array.shape)


def to_contiguous(voxels: Array) -> Array:
    """Convert voxels ``(D, H, W)`` to C order; in place if axes are only reversed.

    A copy would take twice the memory, and the first access to new memory is slow.
    """
    flips = tuple(slice(None, None, -1 if step < 0 else 1) for step in voxels.strides)
    array = voxels[flips]
    if not (array.flags.c_contiguous and array.flags.writeable):
        return np.ascontiguousarray(voxels)
    inner_flips = flips[1:]
    if flips[0].step == -1:
        for low in range((len(array) + 1) // 2):
            high = len(array) - 1 - low
            first = array[low][inner_flips].copy()
            array[low] = (
                array[high][inner_flips].copy() if low == high else array[high][inner_flips]
            )
            array[high] = first
    elif any(axis.step == -1 for axis in inner_flips):
        for index in range(len(array)):
            array[index] = array[index][inner_flips].copy()
    return array


def from_canonical(array: Array, source: Source) -> Array:
    """Reorient ``(D, H, W)`` voxels to the axes of their file."""
    transform = orientations.ornt_transform(
        orientations.axcodes2ornt(AXES), nib.io_orientation(source.affine)
    )
    return np.asarray(orientations.apply_orientation(array, transform))


def allocate_like(source: Source, dtype: npt.DTypeLike) -> Array:
    """Allocate voxels ``(i, j, k)`` that are in C order after ``to_canonical``."""
    canonical, _ = to_canonical(np.broadcast_to(np.uint8(0), source.shape), source.affine)
    return from_canonical(np.empty(canonical.shape, dtype), source)


def intensity_range(
    array: Array, quantiles: tuple[float, float] = INTENSITY_QUANTILES
) -> tuple[float, float]:
    """Compute the intensity range for display and clipping: two quantiles."""
    low, high = np.quantile(array, quantiles)
    return float(low), float(high)


def grid_difference(a: Volume, b: Volume) -> str | None:
    """Compare two grids: ``None`` if they agree, else a sentence with both values.

    Affines agree if no corner of the volume moves by more than 1e-3 mm.
    """
    if a.shape != b.shape:
        return f"their shapes differ: {a.shape} against {b.shape} voxels"
    corners = np.array(
        [[d, h, w, 1] for d in (0, a.shape[0]) for h in (0, a.shape[1]) for w in (0, a.shape[2])]
    ).T
    distance_mm = float(np.abs((a.affine - b.affine) @ corners)[:3].max())
    if distance_mm > GRID_TOLERANCE_MM:
        return (
            f"their positions differ by up to {distance_mm:.3g} mm (spacing "
            f"{_format_mm(a.spacing_mm)} against {_format_mm(b.spacing_mm)} mm)"
        )
    return None


def _format_mm(spacing: tuple[float, float, float]) -> str:
    return " × ".join(f"{s:.4g}" for s in spacing)
