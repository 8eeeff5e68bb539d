"""What every scan has to fulfil, whatever its format."""

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
MAX_DEFLATE_RATIO = 1032  # nothing that gzip or zip packs shrinks by more


@dataclass(frozen=True)
class LoadedImage:
    """What a reader found: voxels ``(i, j, k)`` in the file's own order, and where they lie.

    ``shares_memory`` voxels are a file's or another library's memory, in which nothing may be kept.
    """

    array: Array
    source: Source
    notes: tuple[str, ...] = ()
    shares_memory: bool = True


def check_shape(path: Path, shape: tuple[int, ...]) -> None:
    """Refuse what is not 3D, and sizes that no scan has."""
    size = " × ".join(str(n) for n in shape)
    if len(shape) == 4:
        raise FileFormatError(
            f"{path.name} is 4D ({size}); expected one 3D scan a file. Split it into one file a "
            "channel or time point."
        )
    if len(shape) != 3 or sum(n == 1 for n in shape) >= 1:
        raise FileFormatError(
            f"{path.name} is not 3D ({size} voxels); expected a scan with several slices."
        )
    if min(shape) < 1 or float(np.prod(np.array(shape, dtype=np.float64))) > MAX_VOXELS:
        raise FileFormatError(
            f"{path.name} claims {size} voxels, which no scan has; its header is damaged."
        )


def check_memory(path: Path, needed_bytes: int) -> None:
    """Refuse what cannot fit, before it is read: a packed file can be a thousandth of its size.

    Parameters
    ----------
    needed : bytes of the voxels
    """
    free_bytes = available_memory()
    if free_bytes is not None and needed_bytes > free_bytes:
        raise FileFormatError(
            f"{path.name} does not fit into this computer's memory: its voxels take "
            f"{needed_bytes / 2**30:.1f} GB, and {free_bytes / 2**30:.1f} GB are free. Close other "
            "programs, or crop the scan; if it should be small, its header is damaged."
        )


def check_affine(path: Path, affine: npt.NDArray[np.float64]) -> None:
    """Refuse axes that are not three independent ones."""
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
    """Refuse voxels that are not finite and scans of one single value."""
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):  # one NaN makes both so
        n_invalid = int(array.size - np.count_nonzero(np.isfinite(array)))
        raise FileFormatError(
            f"{path.name} holds {n_invalid} voxels that are not finite numbers (NaN or infinity); "
            "expected a number in every voxel. Replace them, or export the scan again."
        )
    if low == high:
        raise FileFormatError(
            f"{path.name} has the same value ({array.flat[0]:g}) in every voxel; expected a scan "
            "with contrast. Is it the right file?"
        )


def to_native_dtype(array: Array) -> Array:
    """In the machine's byte order, and truth values as numbers."""
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def compute_corner_distance(
    a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], shape: tuple[int, int, int]
) -> float:
    """How far two affines put a corner of the same voxels apart, at most, in mm."""
    corners = np.array([[*c, 1] for c in np.ndindex(2, 2, 2)]).T * np.array([[*shape, 1]]).T
    return float(np.linalg.norm(((a - b) @ corners)[:3], axis=0).max())
