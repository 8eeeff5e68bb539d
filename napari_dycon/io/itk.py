"""Reader and writer of NRRD and MetaImage, through SimpleITK.

SimpleITK's world is LPS and its arrays are (k, j, i); both are converted in this file.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_dycon.core.atomic import atomic_write
from napari_dycon.core.types import Array
from napari_dycon.errors import FileFormatError
from napari_dycon.io.validation import (
    MAX_DEFLATE_RATIO,
    LoadedImage,
    check_affine,
    check_memory,
    check_shape,
    to_native_dtype,
)
from napari_dycon.io.volume import LPS_TO_RAS, Source

READERS = {
    ".nrrd": "NrrdImageIO",
    ".nhdr": "NrrdImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
}
SUFFIXES = tuple(READERS)
MAX_HEADER_BYTES = 2**16
# Fields of headers that specify a separate file with the voxels.
_DATA_FILE = re.compile(r"^\s*(?:data ?file|ElementDataFile)\s*[:=]\s*(.+?)\s*$", re.I | re.M)
_COMPRESSION_FIELD = re.compile(
    r"^\s*(?:encoding\s*:\s*(?:gz|bz|zip)|CompressedData\s*=\s*T)", re.I | re.M
)
# Fields of headers that specify the orientation.
_ORIENTATION_FIELD = re.compile(
    r"^\s*(?:space directions|TransformMatrix|Rotation|Orientation)\s*[:=]", re.I | re.M
)
MISSING_ORIENTATION_NOTE = (
    "{} does not specify its orientation; left, posterior, superior is assumed. Left and right may "
    "be exchanged: compare with the source."
)
# ITK's MetaImage reader crashes or hangs on invalid numbers in these fields.
_NUMERIC_FIELD = re.compile(
    r"^\s*(NDims|DimSize|TransformMatrix|Rotation|Orientation|Offset|Position|Origin|"
    r"CenterOfRotation|ElementSpacing|ElementSize|HeaderSize|CompressedDataSize|"
    r"ElementNumberOfChannels|dimension|sizes|space directions|space origin|spacings)\s*[:=](.*)$",
    re.I | re.M,
)
MAX_HEADER_NUMBER = 1e12


def read(path: Path) -> LoadedImage:
    """Read the voxels and the geometry of a ``.nrrd``, ``.nhdr``, ``.mha`` or ``.mhd`` file."""
    import SimpleITK as sitk  # noqa: N813 (its usual name)

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    if path.stat().st_size == 0:
        raise _unreadable_file_error(path, "it is empty")
    data_file, is_compressed, has_orientation = _find_data_file(path)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(READERS[path.suffix.lower()])
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        size = tuple(int(n) for n in reader.GetSize())
        if reader.GetNumberOfComponents() != 1:
            raise FileFormatError(
                f"{path.name} has {reader.GetNumberOfComponents()} values per voxel (colors, or "
                "several channels); expected one. Save one file per channel."
            )
        while len(size) > 3 and size[-1] == 1:
            size = size[:-1]
        check_shape(path, size)
        dtype = np.dtype(_NUMPY_DTYPES.get(sitk.GetPixelIDValueAsString(reader.GetPixelID()), "V1"))
        if dtype.kind == "V":
            raise FileFormatError(
                f"{path.name} has voxels that are not real numbers. Convert it to numbers."
            )
        max_bytes = data_file.stat().st_size * (MAX_DEFLATE_RATIO if is_compressed else 1)
        if float(np.prod(size, dtype=np.float64)) * dtype.itemsize > max_bytes:
            raise _unreadable_file_error(path, "it is truncated (an incomplete copy or download?)")
        check_memory(path, math.prod(size) * dtype.itemsize)
        image = reader.Execute()
    except (RuntimeError, OSError, MemoryError):
        raise _unreadable_file_error(path, "its header or its data are damaged") from None
    i, j, k = size
    array = np.asarray(_VoxelView(image))
    array = array.reshape(array.shape[-3:]).transpose(2, 1, 0)
    affine = _read_affine(image)
    check_affine(path, affine)
    notes = () if has_orientation else (MISSING_ORIENTATION_NOTE.format(path.name),)
    return LoadedImage(to_native_dtype(array), Source(path, (i, j, k), affine), notes)


def write(voxels: Array, source: Source, path: Path) -> None:
    """Write voxels in the source's own order ``(i, j, k)``, compressed, with its geometry."""
    import SimpleITK as sitk  # noqa: N813

    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    lps = LPS_TO_RAS @ source.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    with atomic_write(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), True)
            # On a full disk the NRRD writer truncates the file without an error.
            written = np.asarray(_VoxelView(sitk.ReadImage(str(temporary))))
            is_complete = np.array_equal(written, voxels.transpose(2, 1, 0), equal_nan=True)
        except RuntimeError:
            is_complete = False
        if not is_complete:
            raise OSError("the file could not be written completely")


class _VoxelView:
    """View of an image's voxels that keeps them alive, unlike SimpleITK's view."""

    def __init__(self, image: Any) -> None:
        import SimpleITK as sitk  # noqa: N813

        self._image = image
        self.__array_interface__ = sitk.GetArrayViewFromImage(image).__array_interface__


def _read_affine(image: Any) -> npt.NDArray[np.float64]:
    """Read the affine from index to RAS+ mm of the first three axes."""
    n = image.GetDimension()
    direction = np.array(image.GetDirection(), dtype=np.float64).reshape(n, n)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.array(image.GetSpacing(), dtype=np.float64)[:3]
    affine[:3, 3] = np.array(image.GetOrigin(), dtype=np.float64)[:3]
    ras: npt.NDArray[np.float64] = LPS_TO_RAS @ affine
    return ras


def _find_data_file(path: Path) -> tuple[Path, bool, bool]:
    """Find the file with the voxels; also whether it is compressed and the header oriented."""
    with path.open("rb") as file:
        head = file.read(MAX_HEADER_BYTES).decode("latin-1")
    if path.suffix.lower() in (".nrrd", ".nhdr"):
        head = re.split(r"\r?\n\r?\n", head, maxsplit=1)[0]
    elif (end := re.search(r"^ElementDataFile\s*=.*$", head, re.M)) is not None:
        head = head[: end.end()]
    is_compressed, has_orientation = (
        _COMPRESSION_FIELD.search(head) is not None,
        _ORIENTATION_FIELD.search(head) is not None,
    )
    _check_header(path, head)
    match = _DATA_FILE.search(head)
    if match is None or match.group(1).upper() == "LOCAL":
        return path, is_compressed, has_orientation
    name = match.group(1)
    if name.upper().startswith("LIST") or "%" in name:
        raise FileFormatError(
            f"The voxels of {path.name} are in several files; expected one file. Save it again as "
            "a single file, such as .nrrd or .mha."
        )
    if not name.isprintable():
        raise _unreadable_file_error(path, "its header is damaged")
    outside_error = FileFormatError(
        f"The voxels of {path.name} are outside its folder; expected a file in the same folder. "
        "Put both into one folder and correct the header."
    )
    windows = PureWindowsPath(name)
    if windows.drive or windows.root or PurePosixPath(name).is_absolute():
        # before accessing the path, which could connect to another machine
        raise outside_error
    data = (path.parent / name).resolve()
    if not data.is_relative_to(path.parent.resolve()):
        raise outside_error
    if not os.path.isfile(data):  # pathlib raises for names that are too long
        raise FileFormatError(
            f"{path.name} is a header, but the file with its voxels, {data.name}, is missing "
            "in its folder. Copy both."
        )
    return data, is_compressed, has_orientation


def _check_header(path: Path, header: str) -> None:
    """Reject invalid headers before a library parses them."""
    fields = {}
    for match in _NUMERIC_FIELD.finditer(header):
        values = re.sub(r"[(),]|none", " ", match.group(2)).split()
        try:
            numbers = [float(value) for value in values]
        except ValueError:
            raise _unreadable_file_error(
                path, f"its header has '{match.group(1)}' without a number"
            ) from None
        if not all(abs(number) < MAX_HEADER_NUMBER for number in numbers):  # nor nan
            raise _unreadable_file_error(
                path, f"its header has '{match.group(1)}' with an invalid number"
            )
        fields[match.group(1).lower()] = numbers
    for name in ("compresseddatasize", "headersize"):  # readers allocate memory of this size
        if any(n > path.stat().st_size for n in fields.get(name, [])):
            raise _unreadable_file_error(path, "its header specifies more data than it has")
    dimensions = fields.get("ndims", fields.get("dimension", [0.0]))
    if len(dimensions) != 1 or dimensions[0] not in range(1, 17):
        raise _unreadable_file_error(path, "its header does not specify the number of dimensions")
    sizes = fields.get("dimsize", fields.get("sizes", []))
    if len(sizes) != dimensions[0] or not all(n >= 1 and n.is_integer() for n in sizes):
        raise _unreadable_file_error(path, "its header does not specify the size")


def _unreadable_file_error(path: Path, problem: str) -> FileFormatError:
    kind = "NRRD" if "Nrrd" in READERS[path.suffix.lower()] else "MetaImage"
    return FileFormatError(
        f"{path.name} cannot be read: {problem}. Expected a 3D {kind} scan; copy or export it "
        "again."
    )


_NUMPY_DTYPES = {
    "8-bit signed integer": "i1",
    "8-bit unsigned integer": "u1",
    "16-bit signed integer": "i2",
    "16-bit unsigned integer": "u2",
    "32-bit signed integer": "i4",
    "32-bit unsigned integer": "u4",
    "64-bit signed integer": "i8",
    "64-bit unsigned integer": "u8",
    "32-bit float": "f4",
    "64-bit float": "f8",
}
