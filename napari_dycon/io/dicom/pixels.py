"""Pixels of a DICOM series in physical units.

Uncompressed pixels are decoded by pydicom, compressed ones that it cannot decode by SimpleITK
(GDCM). The latter gets the stored pixels only, because whether it rescales them depends on the kind
of image.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_dycon.core.types import Array
from napari_dycon.errors import FileFormatError
from napari_dycon.io.dicom.codestream import jpeg_dimensions
from napari_dycon.io.dicom.files import damaged_file_error, read_file, suppress_warnings
from napari_dycon.io.dicom.slice_geometry import Slice

PIXEL_MODULE = (
    "SamplesPerPixel",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)
SCALE_TAGS = (
    "BitsStored",
    "PixelRepresentation",
    "RescaleSlope",
    "RescaleIntercept",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
# The tags needed for decoding pixels, of hundreds in a file.
PIXEL_TAGS = (
    *PIXEL_MODULE,
    *SCALE_TAGS,
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "PixelData",
    "FloatPixelData",
    "DoubleFloatPixelData",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)


class PixelReader:
    """Reader of the pixels of slices in physical units, such as Hounsfield units."""

    def __init__(self, slices: Sequence[Slice]) -> None:
        self._slices = slices
        self._path: Path | None = None
        self._frames: Array = np.zeros(0)
        self._scaling: list[tuple[float, float]] = []
        scalings, ranges = set(), []
        for image in slices:
            if image.value_encoding is None:
                raise damaged_file_error(image.path)
            low, high, slope, intercept = image.value_encoding
            scalings.add((slope, intercept))
            ends = (low * slope + intercept, high * slope + intercept)
            ranges += [min(ends), max(ends)]
        is_integral = all(float(v).is_integer() for pair in scalings for v in pair)
        self.dtype: np.dtype[Any] = np.dtype(np.float32)
        if is_integral:
            for candidate in (np.uint8, np.int16, np.uint16, np.int32):
                limits = np.iinfo(candidate)
                if limits.min <= min(ranges) and max(ranges) <= limits.max:
                    self.dtype = np.dtype(candidate)
                    break

    def read_all(self) -> Iterator[Array]:
        """Yield every slice, (rows, columns)."""
        return (self.read_frame(number) for number in range(len(self._slices)))

    def read_frame(self, number: int) -> Array:
        """Read one slice, (rows, columns), of ``dtype``."""
        image = self._slices[number]
        if image.path != self._path:
            self._frames, self._scaling = _decode(image.path)
            self._path = image.path
        index = image.frame or 0
        plane = self._frames[index]
        if plane.shape != (image.rows, image.columns):
            raise damaged_file_error(image.path)
        slope, intercept = self._scaling[min(index, len(self._scaling) - 1)]
        if (slope, intercept) != (1.0, 0.0):
            wide_dtype = np.int64 if self.dtype.kind in "iu" else np.float64
            plane = plane.astype(wide_dtype) * wide_dtype(slope) + wide_dtype(intercept)
        result: Array = plane.astype(self.dtype)
        return result


def _decode(path: Path) -> tuple[Array, list[tuple[float, float]]]:
    """Decode the frames (n, rows, columns) of a file; also returns the scaling of each."""
    data = read_file(path, include_pixels=True, tags=list(PIXEL_TAGS))
    rows, columns = int(data.Rows), int(data.Columns)
    try:
        with suppress_warnings():
            _check_frames(path, data)
            needs_itk = _needs_itk(data)
            pixels = _decode_with_itk(data, path) if needs_itk else np.asarray(data.pixel_array)
            scaling = _read_scalings(data)
    except FileFormatError:
        raise
    except Exception:  # noqa: BLE001 - pydicom and its decoders raise any error
        raise damaged_file_error(path) from None
    if pixels.size % (rows * columns) or not pixels.size:
        raise damaged_file_error(path)
    return pixels.reshape(-1, rows, columns), scaling


def _check_frames(path: Path, data: Any) -> None:
    """Reject compressed pixels whose size, for which a decoder allocates, is not the header's."""
    from pydicom.encaps import generate_frames

    if not data.file_meta.TransferSyntaxUID.is_encapsulated:
        return
    count = int(data.get("NumberOfFrames") or 1)
    for frame in generate_frames(data.PixelData, number_of_frames=count):
        if jpeg_dimensions(frame) not in (None, (int(data.Rows), int(data.Columns))):
            raise damaged_file_error(path)


def _needs_itk(data: Any) -> bool:
    """Check whether pydicom has no suitable decoder."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import JPEGExtended12Bit

    syntax = data.file_meta.TransferSyntaxUID
    if syntax == JPEGExtended12Bit and int(data.BitsStored) > 8:
        return True  # Pillow, which pydicom uses for it, only supports 8 bits
    try:
        return syntax.is_compressed and not get_decoder(syntax).is_available
    except (NotImplementedError, ValueError):
        return bool(syntax.is_compressed)


def _decode_with_itk(data: Any, path: Path) -> Array:
    """Decode the stored pixels of a compressed file with SimpleITK."""
    import SimpleITK as sitk  # noqa: N813

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    with tempfile.TemporaryDirectory() as folder:
        stripped_file = Path(folder) / "pixels.dcm"
        try:
            _strip_identity_and_scaling(data).save_as(stripped_file, enforce_file_format=True)
            reader.SetFileName(str(stripped_file))
            reader.ReadImageInformation()
            size = reader.GetSize()
            if size[:2] != (int(data.Columns), int(data.Rows)):  # before memory is allocated
                raise damaged_file_error(path)
            array: Array = sitk.GetArrayFromImage(reader.Execute())
        except FileFormatError:
            raise
        except Exception:  # noqa: BLE001 - pydicom parses lazily; SimpleITK raises RuntimeError
            raise FileFormatError(
                f"{path.name} is damaged, or its compression is not supported on this computer. "
                "Export the series uncompressed, or convert it to NIfTI."
            ) from None
    return array


def _strip_identity_and_scaling(data: Any) -> Any:
    """Return a data set with the pixels only, without scaling, position and identity."""
    from pydicom import uid
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate, generate_frames

    stripped = Dataset()
    stripped.file_meta = FileMetaDataset()
    stripped.file_meta.TransferSyntaxUID = data.file_meta.TransferSyntaxUID
    stripped.SOPClassUID = uid.SecondaryCaptureImageStorage
    stripped.SOPInstanceUID = uid.generate_uid()
    for name in PIXEL_MODULE:
        if name in data:
            stripped[name] = data[name]
    stripped.PhotometricInterpretation = "MONOCHROME2"  # stored values, without inversion
    count = int(stripped.get("NumberOfFrames") or 1)
    # Encapsulated again, since GDCM may hang on a damaged list of fragments, while pydicom raises.
    stripped.PixelData = encapsulate(list(generate_frames(data.PixelData, number_of_frames=count)))
    stripped["PixelData"].VR = "OB"
    if count > 1:
        stripped.SOPClassUID = uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage
        if int(stripped.BitsAllocated) == 8:
            stripped.SOPClassUID = uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage
    return stripped


def read_value_encodings(header: Any) -> list[tuple[float, float, float, float]] | None:
    """Read ``Slice.value_encoding`` of each image of a file, or one for all of them."""
    try:
        low, high = _read_stored_range(header)
        return [(low, high, *scaling) for scaling in _read_scalings(header)]
    except Exception:  # noqa: BLE001 - pydicom parses elements lazily and raises any error
        return None


def _read_stored_range(header: Any) -> tuple[float, float]:
    """Read the lowest and highest possible stored value."""
    bits = int(header.BitsStored)
    if not 1 <= bits <= 32:
        raise ValueError(bits)
    is_signed = int(header.PixelRepresentation) == 1
    return (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if is_signed else (0.0, 2.0**bits - 1)


def _read_scalings(data: Any) -> list[tuple[float, float]]:
    """Read rescale slope and intercept of each frame, or one pair for all frames."""
    frames = data.get("PerFrameFunctionalGroupsSequence")
    if not frames:
        return [_read_scaling(data)]
    shared = (data.get("SharedFunctionalGroupsSequence") or [None])[0]
    name = "PixelValueTransformationSequence"
    return [_read_scaling(get_functional_group((frame, shared), name)) for frame in frames]


def _read_scaling(dataset: Any) -> tuple[float, float]:
    """Read rescale slope and intercept, with defaults if they are missing."""
    if dataset is None:
        return 1.0, 0.0
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    return float(slope or 1.0), float(intercept or 0.0)


def get_functional_group(groups: Iterable[Any], sequence: str) -> Any:
    """Return a functional group of a frame, its own or a shared one; ``None`` without any."""
    for group in groups:
        if group is not None and group.get(sequence):
            return group.get(sequence)[0]
    return None
