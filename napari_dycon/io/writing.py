"""Writing of canonical arrays to files on the grid of their scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_dycon.core.types import Array
from napari_dycon.errors import FileFormatError, GeometryError, LabelError
from napari_dycon.io import itk, nifti
from napari_dycon.io.volume import Volume, from_canonical

WRITABLE_SUFFIXES = (*nifti.SUFFIXES, ".nrrd", ".mha")  # header and voxels in one file


def write_mask(mask: Array, *, reference: Volume, path: Path | str) -> None:
    """Write a canonical mask ``(D, H, W)`` as uint8 on the grid of ``reference``'s file.

    The suffix selects the format: ``.nii.gz``, ``.nii``, ``.nrrd`` or ``.mha``.
    """
    if mask.min(initial=0) < 0 or mask.max(initial=0) > 255:
        raise LabelError(
            f"A mask contains values from {mask.min()} to {mask.max()}; expected 0 to 255."
        )
    write_volume(mask.astype(np.uint8), reference=reference, path=path)


def write_map(array: Array, *, reference: Volume, path: Path | str) -> None:
    """Write a canonical map ``(D, H, W)`` as float32 on the grid of ``reference``'s file."""
    write_volume(array.astype(np.float32), reference=reference, path=path)


def write_volume(array: Array, *, reference: Volume, path: Path | str) -> None:
    """Write canonical voxels ``(D, H, W)`` in their own type on ``reference``'s grid."""
    path = Path(path)
    if array.shape != reference.shape:
        raise GeometryError(
            f"An array of {array.shape} voxels cannot be written on a grid of {reference.shape}."
        )
    name = path.name.lower()
    if not name.endswith(WRITABLE_SUFFIXES):
        raise FileFormatError(
            f"{path.name} cannot be written; expected a name that ends with one of: "
            f"{', '.join(WRITABLE_SUFFIXES)}."
        )
    voxels = from_canonical(array, reference.source)
    if name.endswith(nifti.SUFFIXES):
        nifti.write(voxels, reference.source, path)
    else:
        itk.write(voxels, reference.source, path)
