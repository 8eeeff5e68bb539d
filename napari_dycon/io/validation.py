"""Validation of scans, independent of the format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_dycon.core.available_memory import available_memory
from napari_dycon.core.types import Array
from napari_dycon.errors import FileFormatError, GeometryError
from napari_dycon.io.volume import Source

MAX_VOXELS = 2**33
MAX_DEFLATE_RATIO = 1032  # maximum compression ratio of deflate


@dataclass(frozen=True)
class LoadedImage:
    """Result of a reader: voxels ``(i, j, k)`` in the file's order, and their geometry.

    With ``shares_memory``, the voxels are in memory of a file or a library, and must not be kept.
    """

    array: Array
    source: Source
    notes: tuple[str, ...] = ()
    shares_memory: bool = True


def check_shape(path: Path, shape: tuple[int, ...]) -> None:
    """Reject images that are not 3D or are too large."""
    size = " × ".join(str(n) for n in shape)
    if len(shape) == 4:
        raise FileFormatError(
            f"{path.name} is 4D ({size}); expected one 3D scan per file. Split it into one file "
            "per channel or time point."
        )
    if len(shape) != 3 or sum(n == 1 for n in shape) >= 1:
        raise FileFormatError(
            f"{path.name} is not 3D ({size} voxels); expected a scan with several slices."
        )
    if min(shape) < 1 or float(np.prod(np.array(shape, dtype=np.float64))) > MAX_VOXELS:
        raise FileFormatError(
            f"{path.name} has {size} voxels, too many for a scan; its header is damaged."
        )


def check_memory(path: Path, needed_bytes: int) -> None:
    """Reject a file that does not fit into memory before reading it.

    Parameters
    ----------
    needed_bytes : bytes of the decompressed voxels
    """
    free_bytes = available_memory()
    if free_bytes is not None and needed_bytes > free_bytes:
        raise FileFormatError(
            f"{path.name} does not fit into this computer's memory: its voxels take "
            f"{needed_bytes / 2**30:.1f} GB, and {free_bytes / 2**30:.1f} GB are free. Close other "
            "programs, or crop the scan; if it should be small, its header is damaged."
        )


def check_affine(path: Path, affine: npt.NDArray[np.float64]) -> None:
    """Reject affines without three independent axes."""
    axes = affine[:3, :3]
    norms = np.linalg.norm(axes, axis=0)
    if (
        not np.all(np.isfinite(affine))
        or np.any(norms <= 0)
        or abs(np.linalg.det(axes / norms)) < 1e-3
    ):
        raise GeometryError(
            f"{path.name} has no usable geometry: its affine is singular or not finite. Expected "
            "three independent axes; export it again with orientation and spacing."
        )


def check_values(path: Path, array: Array) -> None:
    """Reject voxels that are not finite, and constant scans."""
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):  # one NaN makes both NaN
        n_invalid = int(array.size - np.count_nonzero(np.isfinite(array)))
        raise FileFormatError(
            f"{path.name} has {n_invalid} voxels that are not finite numbers (NaN or infinity); "
            "expected a number in every voxel. Replace them, or export the scan again."
        )
    if low == high:
        raise FileFormatError(
            f"{path.name} has the same value ({array.flat[0]:g}) in every voxel; expected a scan "
            "with contrast. Check that it is the right file."
        )


def to_native_dtype(array: Array) -> Array:
    """Convert to native byte order, and booleans to integers."""
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def compute_corner_distance(
    a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], shape: tuple[int, int, int]
) -> float:
    """Compute the maximum distance in mm between volume corners under two affines."""
    corners = np.array([[*c, 1] for c in np.ndindex(2, 2, 2)]).T * np.array([[*shape, 1]]).T
    return float(np.linalg.norm(((a - b) @ corners)[:3], axis=0).max())
