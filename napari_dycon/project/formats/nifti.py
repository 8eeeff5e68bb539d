"""NIfTI in and out, with the geometry kept to the bit.

Reading turns the voxels to the canonical axes; writing puts them back on the source's own grid with
the source's shape, affine, q and s codes and data order. Free text of a header (which may name a
patient) is never written.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel import imageglobals
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from napari_dycon.errors import FileFormatError, GeometryError, LabelError
from napari_dycon.project.atomic import replacing
from napari_dycon.project.volume import Source, Volume, from_canonical, same_grid, to_canonical

Array = npt.NDArray[Any]
SUFFIXES = (".nii.gz", ".nii")
MOST_VOXELS = 2**33
TEXT_FIELDS = ("descrip", "intent_name", "db_name", "aux_file")


def is_scan(path: Path | str) -> bool:
    """Whether a file is a scan by its name; hidden files are not."""
    name = Path(path).name.lower()
    return name.endswith(SUFFIXES) and not name.startswith(".")


def scan_name(path: Path | str) -> str:
    """File name without ``.nii`` or ``.nii.gz``."""
    name = Path(path).name
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return Path(path).stem


def read_volume(path: Path | str, *, check_values: bool = True) -> Volume:
    """Read a 3D scan and turn it to the canonical axes.

    Parameters
    ----------
    path : a ``.nii`` or ``.nii.gz`` file
    check_values : refuse voxels that are not finite and scans of one single value

    Returns
    -------
    Volume with ``(D, H, W)`` voxels: the file's own integer type, or float32.

    Raises
    ------
    FileFormatError, GeometryError
        In one line: the file, what was found, what was expected.
    """
    path = Path(path)
    image = _open(path)
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    _check_shape(path, shape)
    _check_size(path, image, shape)
    affine = np.asarray(image.affine, dtype=np.float64)
    _check_affine(path, affine)
    array = _voxels(path, image, shape)
    if check_values:
        _check_values(path, array)
    turned, canonical = to_canonical(array, affine)
    i, j, k = shape
    source = Source(path, (i, j, k), affine, image.header.copy())
    return Volume(np.ascontiguousarray(turned), canonical, source)


def read_label(path: Path | str, *, like: Volume | None = None) -> Volume:
    """Read a label as uint8 ``(D, H, W)``; its grid must be that of ``like``.

    Values must be whole numbers from 0 to 255; 255 means that nobody annotated this voxel.
    """
    path = Path(path)
    volume = read_volume(path, check_values=False)
    if like is not None and (difference := same_grid(volume, like)):
        scan = like.source.path.name if like.source.path else "its scan"
        raise GeometryError(
            f"Label {path.name} does not fit {scan}: {difference}. Expected a label on the grid of "
            "its scan; export it again from there."
        )
    array = volume.array
    if not np.all(np.isfinite(array)):
        raise LabelError(f"Label {path.name} holds values that are not numbers (NaN).")
    low, high = array.min(), array.max()
    if low < 0 or high > 255 or np.any(array != np.rint(array)):
        odd = array[array != np.rint(array)]
        example = f" ({odd.flat[0]:g} among them)" if odd.size else ""
        raise LabelError(
            f"Label {path.name} holds values from {low:g} to {high:g}{example}; expected whole "
            "numbers from 0 to 254, and 255 where nothing is annotated. Is it a scan instead of a "
            "label?"
        )
    return Volume(array.astype(np.uint8), volume.affine, volume.source)


def read_map(path: Path | str) -> npt.NDArray[np.float32]:
    """Read a map that ``write_map`` wrote: float32 ``(D, H, W)``."""
    return read_volume(path, check_values=False).array.astype(np.float32, copy=False)


def write_mask(mask: Array, *, like: Volume, path: Path | str) -> None:
    """Write a canonical mask ``(D, H, W)`` as uint8 on the grid of ``like``'s file."""
    if mask.min(initial=0) < 0 or mask.max(initial=0) > 255:
        raise LabelError(
            f"A mask holds values from {mask.min()} to {mask.max()}; expected 0 to 255."
        )
    _write(mask.astype(np.uint8), like, Path(path))


def write_map(array: Array, *, like: Volume, path: Path | str) -> None:
    """Write a canonical map ``(D, H, W)`` as float32 on the grid of ``like``'s file."""
    _write(array.astype(np.float32), like, Path(path))


def _open(path: Path) -> Any:
    if not path.exists():
        raise FileFormatError(f"There is no file {path}. Check its name and folder.")
    if path.is_dir():
        raise FileFormatError(f"{path} is a folder; expected a NIfTI file (.nii or .nii.gz).")
    if not is_scan(path):
        raise FileFormatError(
            f"{path.name} is no NIfTI file by its name; expected .nii or .nii.gz."
        )
    try:
        with _quietly():
            return nib.load(path)
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error) as error:
        raise _unreadable(path, error) from None


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep nibabel's notes on a header's fields from standing before what we say of it."""
    logger = imageglobals.logger

    def silent(_: logging.LogRecord) -> bool:
        return False

    logger.addFilter(silent)
    try:
        yield
    finally:
        logger.removeFilter(silent)


def _unreadable(path: Path, error: BaseException) -> FileFormatError:
    if isinstance(error, MemoryError):
        return FileFormatError(
            f"{path.name} does not fit into this computer's memory. Close other programs, or crop "
            "the scan; if it should be small, its header is damaged."
        )
    if isinstance(error, PermissionError):
        return FileFormatError(f"{path.name} may not be read: permission denied.")
    if path.stat().st_size == 0:
        found = "it is empty"
    elif _ends_early(path, error):
        found = "it ends too early (an incomplete copy or download?)"
    elif path.name.lower().endswith(".gz") and path.read_bytes()[:2] != b"\x1f\x8b":
        found = "it is not compressed as its name says"
    else:
        found = "its header or its data are not those of a NIfTI file"
    return FileFormatError(
        f"{path.name} cannot be read: {found}. Expected a 3D NIfTI scan; copy or export it again."
    )


def _ends_early(path: Path, error: BaseException) -> bool:
    if isinstance(error, EOFError) or "end-of-stream" in str(error):
        return True
    try:
        with gzip.open(path) as file:
            return len(file.read(2**20)) < 352
    except EOFError:
        return True
    except (OSError, zlib.error):
        return False


def _check_shape(path: Path, shape: tuple[int, ...]) -> None:
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
    if min(shape) < 1 or float(np.prod(np.array(shape, dtype=np.float64))) > MOST_VOXELS:
        raise FileFormatError(
            f"{path.name} claims {size} voxels, which no scan has; its header is damaged."
        )


def _check_size(path: Path, image: Any, shape: tuple[int, ...]) -> None:
    """Refuse a file too small for what its header claims, before memory is taken for it."""
    deflate = 1032 if path.name.lower().endswith(".gz") else 1  # nothing shrinks by more
    most = path.stat().st_size * deflate
    if float(np.prod(shape, dtype=np.float64)) * image.get_data_dtype().itemsize > most:
        raise _unreadable(path, EOFError())


def _check_affine(path: Path, affine: npt.NDArray[np.float64]) -> None:
    turn = affine[:3, :3]
    norms = np.linalg.norm(turn, axis=0)
    if (
        not np.all(np.isfinite(affine))
        or np.any(norms <= 0)
        or abs(np.linalg.det(turn / norms)) < 1e-3
    ):
        raise GeometryError(
            f"{path.name} has no usable geometry: its affine is singular or not finite. Expected "
            "three independent axes; export it again with orientation and spacing."
        )


def _voxels(path: Path, image: Any, shape: tuple[int, ...]) -> Array:
    dtype = image.get_data_dtype()
    if dtype.fields is not None or np.issubdtype(dtype, np.complexfloating):
        raise FileFormatError(
            f"{path.name} holds colour or complex voxels ({dtype}); expected one number a voxel."
        )
    proxy = image.dataobj
    identity = (proxy.slope, proxy.inter) == (1.0, 0.0)
    try:
        if identity and np.issubdtype(dtype, np.integer):
            array = np.asarray(proxy.get_unscaled())
        else:
            array = np.asarray(proxy)
    except (OSError, EOFError, ValueError, MemoryError, zlib.error) as error:
        raise _unreadable(path, error) from None
    array = array.reshape(shape)
    if np.issubdtype(array.dtype, np.floating):
        return array.astype(np.float32, copy=False)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _check_values(path: Path, array: Array) -> None:
    if np.issubdtype(array.dtype, np.floating):
        bad = int(array.size - np.count_nonzero(np.isfinite(array)))
        if bad:
            raise FileFormatError(
                f"{path.name} holds {bad} voxels that are not finite numbers (NaN or infinity); "
                "expected a number in every voxel. Replace them, or export the scan again."
            )
    if array.min() == array.max():
        raise FileFormatError(
            f"{path.name} has the same value ({array.flat[0]:g}) in every voxel; expected a scan "
            "with contrast. Is it the right file?"
        )


def _write(array: Array, like: Volume, path: Path) -> None:
    if array.shape != like.shape:
        raise GeometryError(
            f"An array of {array.shape} voxels cannot be written on a grid of {like.shape}."
        )
    voxels = from_canonical(array, like.source)
    header = like.source.header
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    if header is None:
        image = kind(voxels, like.source.affine)
        image.header.set_xyzt_units("mm")
    else:
        # A header is only taken over from NIfTI: its codes and matrices stay as they are.
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
        image = kind(voxels, None, header)
        image.header["pixdim"] = pixdim  # nibabel resets the unused ones
    with replacing(path) as temporary:
        if path.name.lower().endswith(".gz"):
            with temporary.open("wb") as raw, gzip.GzipFile("", "wb", 1, raw, mtime=0) as file:
                file.write(image.to_bytes())
        else:
            temporary.write_bytes(image.to_bytes())
