"""Reader and writer of NIfTI, with bit-exact geometry.

Writing keeps the source's shape, affine, q and s codes and data order. Free text of a header (which
may identify a patient) is never written.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel import imageglobals
from nibabel.arrayproxy import ArrayProxy
from nibabel.spatialimages import HeaderDataError

from napari_dycon.core.atomic import atomic_write
from napari_dycon.core.types import Array
from napari_dycon.core.wording import format_count
from napari_dycon.errors import FileFormatError
from napari_dycon.io.files import check_path_type
from napari_dycon.io.gzip import DECOMPRESSION_ERRORS, open_gzip_writer, read_gzip_voxels
from napari_dycon.io.validation import (
    MAX_DEFLATE_RATIO,
    LoadedImage,
    check_affine,
    check_memory,
    check_shape,
    compute_corner_distance,
    to_native_dtype,
)
from napari_dycon.io.volume import Source

SUFFIXES = (".nii.gz", ".nii")
# By the first four bytes, the length of the header.
IMAGE_CLASSES = {
    (348).to_bytes(4, "little"): nib.Nifti1Image,
    (540).to_bytes(4, "little"): nib.Nifti2Image,
}
MAX_HEADER_BYTES = 540
TEXT_FIELDS = ("data_type", "descrip", "intent_name", "db_name", "aux_file")
MILLIMETERS_PER_UNIT = {1: 1000.0, 3: 0.001}  # by unit code: meters, micrometers
TOLERANCE_MM = 1e-2  # between the q and the s form, which are stored as float32


def read(path: Path, channel: int | None = None) -> LoadedImage:
    """Read the voxels and the geometry of a ``.nii`` or ``.nii.gz`` file.

    Parameters
    ----------
    channel : index of the 3D scan in a 4D file; without it, a file with several is rejected
    """
    image = _open_image(path)
    shape = _squeeze_shape(image)
    if channel is not None and (len(shape) != 4 or channel >= shape[3]):
        count = shape[3] if len(shape) == 4 else 1
        raise FileFormatError(
            f"{path.name} has {format_count(count, 'channel')}; expected at least {channel + 1}. "
            "Restore the file with all channels."
        )
    check_shape(path, shape if channel is None else shape[:3])
    _check_size(path, image, shape)
    i, j, k = shape = shape[:3]
    affine, notes = _read_geometry(path, image, (i, j, k))
    array = _read_voxels(path, image, shape, channel)
    # Decompressed voxels are in our own memory, unlike those of a mapped file.
    shares_memory = not path.name.lower().endswith(".gz")
    return LoadedImage(
        array, Source(path, (i, j, k), affine, image.header.copy()), notes, shares_memory
    )


def count_channels(path: Path) -> int:
    """Count the 3D scans in a file by its header; 1 if it cannot be read."""
    try:
        check_path_type(path)
        shape = _squeeze_shape(_open_image(path))
    except FileFormatError:
        return 1  # reading the file reports the error
    return shape[3] if len(shape) == 4 else 1


def _squeeze_shape(image: Any) -> tuple[int, ...]:
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _open_image(path: Path) -> Any:
    """Open header and a proxy for the voxels; header extensions are not read.

    Extensions specify their own length and are not trusted.
    """
    try:
        with _suppress_log():
            block = _read_header_bytes(path, MAX_HEADER_BYTES)
            lengths = {block[:4], block[3::-1]} & set(IMAGE_CLASSES)
            image_class = IMAGE_CLASSES[lengths.pop()] if lengths else nib.Nifti1Image
            header = image_class.header_class(block[: image_class.header_class.sizeof_hdr])
            # Damage of the header may show only when its fields are accessed.
            header.get_data_shape(), header.get_data_dtype(), header.get_data_offset()
            return image_class(ArrayProxy(path, header), None, header)
    except Exception as error:  # noqa: BLE001 - nibabel raises any error on damaged headers
        raise _unreadable_file_error(path, error) from None


def _read_header_bytes(path: Path, count: int) -> bytes:
    """Read the first bytes of a file, decompressed if its name ends with .gz."""
    if path.name.lower().endswith(".gz"):
        with gzip.open(path) as compressed:
            return compressed.read(count)
    with path.open("rb") as file:
        return file.read(count)


@contextlib.contextmanager
def _suppress_log() -> Iterator[None]:
    """Suppress nibabel's log records on header fields, which our messages replace."""
    logger = imageglobals.logger

    def reject_record(_: logging.LogRecord) -> bool:
        return False

    logger.addFilter(reject_record)
    try:
        yield
    finally:
        logger.removeFilter(reject_record)


def _unreadable_file_error(path: Path, error: BaseException) -> FileFormatError:
    if isinstance(error, MemoryError):
        return FileFormatError(
            f"{path.name} does not fit into this computer's memory. Close other programs, or crop "
            "the scan; if it should be small, its header is damaged."
        )
    if isinstance(error, PermissionError):
        return FileFormatError(f"{path.name} cannot be read: permission denied.")
    if path.stat().st_size == 0:
        problem = "it is empty"
    elif _is_truncated(path, error):
        problem = "it is truncated (an incomplete copy or download?)"
    elif path.name.lower().endswith(".gz") and not _is_gzip(path):
        problem = "it is not compressed, although its name ends with .gz"
    else:
        problem = "its header or its data are not valid NIfTI"
    return FileFormatError(
        f"{path.name} cannot be read: {problem}. Expected a 3D NIfTI scan; copy or export it again."
    )


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _is_truncated(path: Path, error: BaseException) -> bool:
    if isinstance(error, EOFError) or "end-of-stream" in str(error):
        return True
    try:
        with gzip.open(path) as file:
            return len(file.read(2**20)) < 352
    except EOFError:
        return True
    except (OSError, zlib.error):
        return False


def _check_size(path: Path, image: Any, shape: tuple[int, ...]) -> None:
    """Reject a file that is too small for its header, before memory is allocated."""
    max_bytes = path.stat().st_size * (
        MAX_DEFLATE_RATIO if path.name.lower().endswith(".gz") else 1
    )
    itemsize, offset = image.get_data_dtype().itemsize, image.dataobj.offset
    if float(np.prod(shape, dtype=np.float64)) * itemsize + offset > max_bytes or offset < 0:
        raise _unreadable_file_error(path, EOFError())
    is_scaled = (image.dataobj.slope, image.dataobj.inter) != (1.0, 0.0)
    check_memory(path, math.prod(shape[:3]) * (8 if is_scaled else itemsize))


def _read_voxels(path: Path, image: Any, shape: tuple[int, ...], channel: int | None) -> Array:
    dtype = image.get_data_dtype()
    if dtype.fields is not None or np.issubdtype(dtype, np.complexfloating):
        raise FileFormatError(
            f"{path.name} has color or complex voxels ({dtype}); expected one value per voxel."
        )
    proxy = image.dataobj
    is_unscaled = (proxy.slope, proxy.inter) == (1.0, 0.0)
    try:
        if channel is not None:
            # Other channels are not kept in memory; integers without scaling keep their type.
            array = np.asarray(proxy[(..., channel, *(0 for _ in image.shape[4:]))])
        elif is_unscaled and path.name.lower().endswith(".gz"):
            array = read_gzip_voxels(path, proxy.offset, shape, dtype)
        elif is_unscaled and np.issubdtype(dtype, np.integer):
            array = np.asarray(proxy.get_unscaled())
        else:
            array = np.asarray(proxy)
    except (OSError, EOFError, ValueError, MemoryError, *DECOMPRESSION_ERRORS) as error:
        raise _unreadable_file_error(path, error) from None
    array = array.reshape(shape)
    if not is_unscaled and np.issubdtype(array.dtype, np.floating):
        return array.astype(np.float32)  # scaled integers, which nibabel converts to float64
    return to_native_dtype(array)


def _read_geometry(
    path: Path, image: Any, shape: tuple[int, int, int]
) -> tuple[npt.NDArray[np.float64], tuple[str, ...]]:
    """Read the affine in mm, with notes on conflicting or missing information."""
    header, notes = image.header, []
    q_code, s_code = int(header["qform_code"]), int(header["sform_code"])
    try:
        with np.errstate(all="ignore"):  # damaged headers; the result is checked below
            affine = np.asarray(header.get_best_affine(), dtype=np.float64)
            q_form = np.asarray(header.get_qform(), dtype=np.float64) if q_code > 0 else None
    except (HeaderDataError, ValueError, np.linalg.LinAlgError):
        affine, q_form = np.full((4, 4), np.nan), None
        with contextlib.suppress(HeaderDataError, ValueError, np.linalg.LinAlgError):
            affine = np.asarray(header.get_sform(), dtype=np.float64)
    if s_code > 0 and q_form is not None:
        if _is_valid_affine(affine):
            distance_mm = compute_corner_distance(affine, q_form, shape)
            if distance_mm > max(TOLERANCE_MM, 1e-6 * float(np.abs(affine).max())):
                notes.append(
                    f"{path.name}: its q form and its s form differ by up to {distance_mm:.3g} mm. "
                    "The s "
                    "form is used, as by most programs, since it also represents a registration "
                    "found."
                )
        elif _is_valid_affine(q_form):
            affine = q_form
            notes.append(f"{path.name}: its s form is invalid; the q form is used instead.")
    if q_code <= 0 and s_code <= 0:
        notes.append(
            f"{path.name} does not specify its orientation (q and s codes are 0); left, anterior, "
            "superior is assumed. Left and right may be exchanged: compare with the source."
        )
    factor = MILLIMETERS_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    if factor != 1.0:
        notes.append(f"{path.name} is not in millimeters; its geometry was converted.")
        affine = np.diag([factor, factor, factor, 1.0]) @ affine
    check_affine(path, affine)
    return affine, tuple(notes)


def _is_valid_affine(affine: npt.NDArray[np.float64]) -> bool:
    return bool(np.all(np.isfinite(affine)) and abs(np.linalg.det(affine[:3, :3])) > 0)


def write(voxels: Array, source: Source, path: Path) -> None:
    """Write voxels in the file's order ``(i, j, k)`` on the source's grid."""
    header = source.header
    image_class = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    if header is None:
        image = image_class(voxels, source.affine, dtype=voxels.dtype)
        image.header.set_xyzt_units("mm")
        image.set_sform(source.affine, code=1)
        rotation = source.affine[:3, :3] / np.linalg.norm(source.affine[:3, :3], axis=0)
        is_orthogonal = np.allclose(rotation.T @ rotation, np.eye(3), atol=1e-5)
        # The q form cannot represent sheared axes, so it is unset for programs that prefer it.
        image.set_qform(source.affine, code=1 if is_orthogonal else 0)
    else:
        # Only a NIfTI header is reused: its codes and matrices are unchanged.
        pixdim = header["pixdim"].copy()
        header = header.copy()
        header.extensions.clear()
        header.set_data_dtype(voxels.dtype)
        header.set_data_shape(voxels.shape)
        header.set_slope_inter(1.0, 0.0)
        header["cal_min"] = header["cal_max"] = 0
        header.set_intent("none")
        for field in TEXT_FIELDS:
            if field in header:  # NIfTI-2 has fewer
                header[field] = b""
        image = image_class(voxels, None, header)
        image.header["pixdim"] = pixdim  # nibabel resets the unused ones
    with atomic_write(path) as temporary, temporary.open("wb") as raw:
        if path.name.lower().endswith(".gz"):
            with open_gzip_writer(raw) as file:
                image.to_stream(file)
        else:
            image.to_stream(raw)
