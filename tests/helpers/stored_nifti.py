"""NIfTI files for tests of reading and writing."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (3, 4, 5)
AFFINE = np.array([[0, 0, -0.7, 31.5], [1.1, 0, 0, -12.25], [0, 2.5, 0, 7.125], [0, 0, 0, 1.0]])


def save_nifti_bytes(
    path: Path,
    array: np.ndarray,
    affine: np.ndarray = AFFINE,
    *,
    codes: tuple[int, int] = (1, 1),
    kind: type[nib.Nifti1Image] = nib.Nifti1Image,
    endian: str = "<",
) -> Path:
    """Write a file with the q and s codes and the byte order asked for."""
    header = kind.header_class(endianness=endian)
    header.set_data_dtype(array.dtype)
    image = kind(array, affine, header)
    image.set_qform(affine, code=codes[0])
    image.set_sform(affine, code=codes[1])
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)
    return path


def make_voxels(dtype: str, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)
