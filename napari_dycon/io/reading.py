"""Reading of scans in any format into volumes with canonical axes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_dycon.core.types import ProgressCallback
from napari_dycon.core.untrusted import CODE_EXECUTION_WARNING, PICKLE_SUFFIXES
from napari_dycon.errors import FileFormatError, GeometryError, LabelError
from napari_dycon.io import itk, nifti
from napari_dycon.io.dicom import reader as dicom
from napari_dycon.io.dicom.discovery import Series
from napari_dycon.io.dicom.files import is_dicom
from napari_dycon.io.files import check_path_type, folder_fingerprint
from napari_dycon.io.validation import LoadedImage
from napari_dycon.io.validation import check_values as _check_values
from napari_dycon.io.volume import Volume, grid_difference, to_canonical, to_contiguous

SUFFIXES = (*nifti.SUFFIXES, *itk.SUFFIXES)
SUPPORTED_FORMATS = "NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr), MetaImage (.mha, .mhd) or DICOM"
_CHANNEL_ADDRESS = re.compile(r"^(.+\.nii(?:\.gz)?)#(\d{1,4})$", re.IGNORECASE)  # scan.nii.gz#2


def is_scan(path: Path | str) -> bool:
    """Check by name whether a single file is a scan; hidden files are not.

    Files of DICOM series are not, since a scan has several; see ``dicom.discovery.find_series``.
    """
    name = Path(path).name.lower()
    return name.endswith(SUFFIXES) and not name.startswith(".")


def scan_name(path: Path | str) -> str:
    """Return the file name without its suffix; for a DICOM series, the name of its folder."""
    path = get_scan_file(path)
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.absolute().parent.name if path.is_file() else path.name


def get_scan_file(path: Path | str) -> Path:
    """Return the file of a scan: ``scan.nii.gz`` for ``scan.nii.gz#2``."""
    return _split_channel(Path(path))[0]


def scan_fingerprint(path: Path | str) -> object:
    """Return a value that changes when files of a scan do; for a series, those of its folder."""
    file = get_scan_file(path)
    if file.is_dir() or not is_scan(file):
        return folder_fingerprint(file if file.is_dir() else file.parent)
    state = file.stat()
    return (file.name, state.st_mtime_ns, state.st_size)


def _split_channel(path: Path) -> tuple[Path, int | None]:
    match = _CHANNEL_ADDRESS.match(path.name)
    return (path.with_name(match[1]), int(match[2])) if match else (path, None)


def read_volume(path: Path | str, *, check_values: bool = True, resample: bool = False) -> Volume:
    """Read a 3D scan and reorient it to the canonical axes.

    Parameters
    ----------
    path : a NIfTI, NRRD or MetaImage file, a folder with one DICOM series, or any file of a
        series; of a 4D NIfTI file a channel by its number from 0, as in ``scan.nii.gz#2``
    check_values : reject voxels that are not finite, and constant scans
    resample : resample irregular or tilted slices of a DICOM series to regular spacing instead of
        raising ``IrregularSlicesError``

    Returns
    -------
    volume with ``(D, H, W)`` voxels of the file's type (float32 for scaled integers), and notes on
    decisions made while reading

    Raises
    ------
    FileFormatError, GeometryError
        The file cannot be read as a scan.
    """
    path, channel = _split_channel(Path(path))
    image = _load_image(path, channel, resample)
    if check_values:
        _check_values(path, image.array)
    return _to_volume(image)


def read_series(
    series: Series,
    *,
    resample: bool = False,
    progress: ProgressCallback | None = None,
) -> Volume:
    """Read a series from ``dicom.discovery.find_series``, as ``read_volume`` does.

    ``progress`` is called with the number of images read and their total number.
    """
    image = dicom.read_series(series, series.path, resample=resample, progress=progress)
    _check_values(series.path, image.array)
    return _to_volume(image)


def _to_volume(image: LoadedImage) -> Volume:
    canonical, affine = to_canonical(image.array, image.source.affine)
    array = np.array(canonical, order="C") if image.shares_memory else to_contiguous(canonical)
    return Volume(array, affine, image.source, image.notes)


def _load_image(path: Path, channel: int | None, resample: bool) -> LoadedImage:
    check_path_type(path)
    try:
        if path.is_dir():
            return dicom.read(path, resample=resample)
        name = path.name.lower()
        if name.endswith(nifti.SUFFIXES):
            return nifti.read(path, channel)
        if name.endswith(itk.SUFFIXES):
            return itk.read(path)
        if is_dicom(path):
            return dicom.read(path, resample=resample)
    except PermissionError:
        raise FileFormatError(f"{path.name} cannot be read: permission denied.") from None
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise FileFormatError(
            f"{path.name} is or may hold a Python pickle, {CODE_EXECUTION_WARNING}; expected "
            f"{SUPPORTED_FORMATS}."
        )
    raise FileFormatError(f"{path.name} is not a scan by its name; expected {SUPPORTED_FORMATS}.")


def read_label(path: Path | str, *, reference: Volume | None = None) -> Volume:
    """Read a label as uint8 ``(D, H, W)``; its grid must be that of ``reference``.

    Values must be whole numbers from 0 to 255; 255 means unannotated.
    """
    path = Path(path)
    volume = read_volume(path, check_values=False)
    _check_grid(volume, reference, f"Label {path.name}")
    array = volume.array
    if array.dtype == np.uint8:  # all values are valid
        return volume
    if not np.all(np.isfinite(array)):
        raise LabelError(f"Label {path.name} contains NaN; expected whole numbers from 0 to 255.")
    low, high = array.min(), array.max()
    if low < 0 or high > 255 or np.any(array != np.rint(array)):
        fractional = array[array != np.rint(array)]
        example = f" ({fractional.flat[0]:g} among them)" if fractional.size else ""
        raise LabelError(
            f"Label {path.name} contains values from {low:g} to {high:g}{example}; expected whole "
            "numbers from 0 to 254, and 255 for unannotated voxels. Is it a scan instead of a "
            "label?"
        )
    return Volume(array.astype(np.uint8), volume.affine, volume.source, volume.notes)


def read_map(path: Path | str, *, reference: Volume | None = None) -> npt.NDArray[np.float32]:
    """Read a map, float32 ``(D, H, W)``; its grid must be that of ``reference``."""
    volume = read_volume(path, check_values=False)
    _check_grid(volume, reference, f"Map {Path(path).name}")
    return volume.array.astype(np.float32, copy=False)


def _check_grid(volume: Volume, reference: Volume | None, description: str) -> None:
    if reference is not None and (difference := grid_difference(volume, reference)):
        scan = reference.source.path.name if reference.source.path else "its scan"
        raise GeometryError(
            f"{description} does not fit {scan}: {difference}. Expected the grid of its scan; "
            "resample it to the scan."
        )
