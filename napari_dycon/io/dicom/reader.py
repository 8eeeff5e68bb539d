"""Reader of DICOM series."""

from __future__ import annotations

from pathlib import Path

from napari_dycon.core.types import ProgressCallback
from napari_dycon.core.wording import format_count
from napari_dycon.errors import FileFormatError, IrregularSlicesError
from napari_dycon.io.dicom.discovery import (
    Series,
    find_series,
    find_sibling_series,
    select_single_series,
    series_containing,
)
from napari_dycon.io.dicom.pixels import PixelReader
from napari_dycon.io.dicom.resampling import resample_slices
from napari_dycon.io.dicom.slice_geometry import check_regular_spacing, compute_affine
from napari_dycon.io.validation import MAX_VOXELS, LoadedImage, check_memory
from napari_dycon.io.volume import Source, allocate_like

MAX_FILES = 100_000  # in the folder of one scan


def read(path: Path, *, resample: bool = False) -> LoadedImage:
    """Read the series in a folder, or the series of a file.

    Raises
    ------
    FileFormatError
        There is no series, there are several, or pixels cannot be read.
    GeometryError, IrregularSlicesError
        Its slices are not a regular grid; see ``slice_geometry.check_regular_spacing``.
    """
    if path.is_dir():
        candidates = find_series(path, max_files=MAX_FILES)
    else:
        path = path.absolute()
        candidates = series_containing(path, find_sibling_series(path))
    series, notes = select_single_series(path, candidates)
    return read_series(series, path, notes, resample=resample)


def read_series(
    series: Series,
    path: Path,
    notes: tuple[str, ...] = (),
    *,
    resample: bool = False,
    progress: ProgressCallback | None = None,
) -> LoadedImage:
    """Read a series from ``find_series``; ``path`` is the file or folder shown for it.

    Raises
    ------
    FileFormatError, GeometryError, IrregularSlicesError
        As ``read``.
    """
    slices = series.slices
    name = f"Series {series.description}" if series.description else "The series"
    name = f"{name} in {path.name if path.is_dir() else path.parent.name}"
    if len(slices) < 2:
        raise FileFormatError(
            f"{name} has one image; expected a scan with several slices. Choose another series."
        )
    if (number := float(len(slices)) * slices[0].rows * slices[0].columns) > MAX_VOXELS:
        raise FileFormatError(
            f"{name} has {number:.3g} voxels, too many for a scan. Export it again."
        )
    if series.damaged_files:
        notes += (
            f"{format_count(len(series.damaged_files), 'damaged file')} in the folder "
            f"{'was' if len(series.damaged_files) == 1 else 'were'} left out, such as "
            f"{series.damaged_files[0]}; slices may be missing at its ends.",
        )
    pixels = PixelReader(slices)
    check_memory(path, slices[0].rows * slices[0].columns * len(slices) * pixels.dtype.itemsize)
    try:
        check_regular_spacing(slices, name)
    except IrregularSlicesError as error:
        if not resample:
            raise
        notes += (f"{error.finding}. It was resampled.",)
        return _read_resampled(series, path, pixels, notes)
    shape = slices[0].columns, slices[0].rows, len(slices)
    files = tuple(dict.fromkeys(s.path for s in slices))
    source = Source(path, shape, compute_affine(slices), None, files)
    array = allocate_like(source, pixels.dtype)
    for number, plane in enumerate(pixels.read_all()):
        array[:, :, number] = plane.T
        if progress:
            progress(number + 1, len(slices))
    return LoadedImage(array, source, notes, shares_memory=False)


def _read_resampled(
    series: Series, path: Path, pixels: PixelReader, notes: tuple[str, ...]
) -> LoadedImage:
    stack, affine = resample_slices(series.slices, pixels.read_frame, pixels.dtype)
    k, j, i = stack.shape
    return LoadedImage(stack.transpose(2, 1, 0), Source(path, (i, j, k), affine), notes, False)
