"""A scan in the one orientation the program works in.

Inside, axes are ``(D, H, W)`` and run towards Superior, Posterior and Left: sliding goes from feet
to head and a slice shows as radiologists expect it. Files are turned to this once, when they are
read, by transposing and flipping only; an oblique rotation stays in the affine. World coordinates
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
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # and back; DICOM and ITK use LPS
GRID_TOLERANCE_MM = 1e-3
INTENSITY_QUANTILES = (0.005, 0.995)  # of voxels; a few bright ones must not set the range
MAX_CHANNELS = 8  # of a scan; more in one file are time points


@dataclass(frozen=True)
class Source:
    """Where voxels came from: all that is needed to write back on the same grid.

    ``shape`` and ``affine`` (index to RAS+ mm) are those of the file; ``header`` is nibabel's.
    ``files`` are those of a DICOM series, sorted so that the third index counts them; they are
    empty for other formats, and for a series that was resampled.
    """

    path: Path | None
    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]
    header: Any | None = None
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Volume:
    """Voxels ``(D, H, W)`` or ``(C, D, H, W)`` and ``affine``, canonical index to RAS+ mm.

    ``notes`` tell a person, a sentence each, what had to be decided or done to read the file.
    """

    array: Array
    affine: npt.NDArray[np.float64]
    source: Source
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels ``(D, H, W)``."""
        d, h, w = self.array.shape[-3:]
        return d, h, w

    @property
    def channels(self) -> int:
        """How many channels the scan has."""
        return 1 if self.array.ndim == 3 else int(self.array.shape[0])

    def grid_only(self) -> Volume:
        """Return the grid alone: all voxels are 0 and take no memory."""
        return replace(self, array=np.broadcast_to(np.uint8(0), self.shape))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of neighboring voxels along D, H, W in millimeters."""
        z, y, x = (float(v) for v in np.linalg.norm(self.affine[:3, :3], axis=0))
        return z, y, x


def _reorientation(affine: npt.NDArray[np.float64]) -> Array:
    """Orientation transform (nibabel's ornt) from a file's axes to the canonical ones."""
    return np.asarray(
        orientations.ornt_transform(nib.io_orientation(affine), orientations.axcodes2ornt(AXES))
    )


def to_canonical(
    array: Array, affine: npt.NDArray[np.float64]
) -> tuple[Array, npt.NDArray[np.float64]]:
    """Turn ``(i, j, k)`` voxels to Superior, Posterior, Left; lossless, may return a view."""
    transform = _reorientation(affine)
    reoriented = orientations.apply_orientation(array, transform)
    return reoriented, affine @ orientations.inv_ornt_aff(transform, array.shape)


def to_contiguous(voxels: Array) -> Array:
    """Put voxels ``(D, H, W)`` into C order; within their own memory where axes only run backwards.

    A copy would need the memory twice, and memory that is touched for the first time is slow.
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
    """Turn ``(D, H, W)`` voxels back to the axes of the file they belong to."""
    transform = orientations.ornt_transform(
        orientations.axcodes2ornt(AXES), nib.io_orientation(source.affine)
    )
    return np.asarray(orientations.apply_orientation(array, transform))


def allocate_like(source: Source, dtype: npt.DTypeLike) -> Array:
    """Room for voxels ``(i, j, k)`` that ``to_canonical`` turns without moving them in memory."""
    canonical, _ = to_canonical(np.broadcast_to(np.uint8(0), source.shape), source.affine)
    return from_canonical(np.empty(canonical.shape, dtype), source)


def intensity_range(
    array: Array, quantiles: tuple[float, float] = INTENSITY_QUANTILES
) -> tuple[float, float]:
    """Return the intensities between which a scan is displayed and clipped: two quantiles."""
    low, high = np.quantile(array, quantiles)
    return float(low), float(high)


def grid_difference(a: Volume, b: Volume) -> str | None:
    """Compare two grids: ``None`` when they agree, else a sentence with both values.

    Affines agree when no corner of the volume moves by more than 1e-3 mm.
    """
    if a.shape != b.shape:
        return f"their shapes differ: {a.shape} against {b.shape} voxels"
    corners = np.array(
        [[d, h, w, 1] for d in (0, a.shape[0]) for h in (0, a.shape[1]) for w in (0, a.shape[2])]
    ).T
    distance_mm = float(np.abs((a.affine - b.affine) @ corners)[:3].max())
    if distance_mm > GRID_TOLERANCE_MM:
        return (
            f"they lie in different places, up to {distance_mm:.3g} mm apart (spacing "
            f"{_format_mm(a.spacing_mm)} against {_format_mm(b.spacing_mm)} mm)"
        )
    return None


def _format_mm(spacing: tuple[float, float, float]) -> str:
    return " × ".join(f"{s:.4g}" for s in spacing)
