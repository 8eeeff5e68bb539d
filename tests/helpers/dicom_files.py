"""Small DICOM series and multi-frame files, written with pydicom alone."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom import uid as uids
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

from napari_dycon.io.volume import Source, Volume, to_canonical

# Directions of a row (to the next column) and of a column (to the next row), LPS.
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
OBLIQUE = (0.9396926, 0.3420201, 0.0, -0.2620026, 0.7198463, -0.6427876)
SPACING = (3.5, 1.25, 0.75)  # between slices, rows, columns; mm
SHAPE = (9, 7, 6)  # columns, rows, slices
ORIGIN = (-31.5, 12.25, 7.125)  # of the first pixel of slice 0; LPS mm
ROOT = "1.2.826.0.1.3680043.8.498.77"
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

IDENTITY = {
    "PatientName": "Müstermann^Erika",
    "PatientID": "ID-4711",
    "PatientBirthDate": "19640812",
    "PatientSex": "F",
    "PatientAge": "057Y",
    "PatientSize": "1.71",
    "PatientWeight": "68.5",
    "PatientComments": "Comment-4711",
    "OtherPatientIDs": "OTHER-4711",
    "AdditionalPatientHistory": "History-4711",
    "StudyDate": "20210304",
    "StudyTime": "101112",
    "SeriesDate": "20210305",
    "AcquisitionDate": "20210306",
    "AcquisitionTime": "131415",
    "AcquisitionDateTime": "20210306131415",
    "ContentDate": "20210307",
    "StudyID": "STUDY-4711",
    "StudyDescription": "Studydescription-4711",
    "AccessionNumber": "ACC-4711",
    "ReferringPhysicianName": "Referrer^Rudi",
    "PerformingPhysicianName": "Performer^Petra",
    "OperatorsName": "Operator^Otto",
    "InstitutionName": "Institution-4711",
    "InstitutionAddress": "Address-4711",
    "StationName": "STATION-4711",
    "Manufacturer": "Maker-4711",
    "DeviceSerialNumber": "SERIAL-4711",
    "ProtocolName": "Protocol-4711",
    "SeriesDescription": "Series-4711",
    "PositionReferenceIndicator": "Indicator-4711",
}


def make_voxels(shape: tuple[int, int, int] = (5, 6, 7), dtype: str = "int16") -> np.ndarray:
    """Voxels that are all different."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def compress_file(path: Path, syntax: UID = uids.RLELossless) -> None:
    """Pack a file's pixels: by pydicom, or by Pillow or SimpleITK where it cannot."""
    data = dcmread(path)
    if syntax in (uids.RLELossless, uids.JPEGLSLossless):
        data.compress(syntax)
    elif syntax == uids.JPEGLSNearLossless:
        data.compress(syntax, jls_error=2)
    else:
        planes = data.pixel_array.reshape(-1, data.Rows, data.Columns)
        lossy = syntax in (uids.JPEGBaseline8Bit, uids.JPEG2000)
        data.PixelData = encapsulate(
            [(_compress_with_pillow if lossy else _compress_with_itk)(p, syntax) for p in planes]
        )
        data["PixelData"].VR = "OB"
        data["PixelData"].is_undefined_length = True
        data.file_meta.TransferSyntaxUID = syntax
    data.save_as(path)


def _compress_with_pillow(plane: np.ndarray, syntax: UID) -> bytes:
    packed = io.BytesIO()
    if syntax == uids.JPEG2000:
        image = Image.fromarray(plane)
        image.save(packed, "JPEG2000", no_jp2=True, irreversible=True, num_resolutions=1)
    else:
        Image.fromarray(plane).save(packed, "JPEG", quality=95)
    return packed.getvalue()


def _compress_with_itk(plane: np.ndarray, syntax: UID) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plane.dcm"
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.SetUseCompression(True)
        writer.SetCompressor("JPEG2000" if syntax == uids.JPEG2000Lossless else "JPEG")
        writer.SetFileName(str(path))
        writer.Execute(sitk.GetImageFromArray(plane))
        return next(generate_frames(dcmread(path).PixelData, number_of_frames=1))


def save_series(
    folder: Path,
    voxels: np.ndarray,
    *,
    directions: Sequence[float] = AXIAL,
    spacing: tuple[float, float, float] = (2.5, 0.9, 0.7),
    origin: Sequence[float] = (-30.0, 20.5, 100.0),
    backwards: bool = False,
    descending: bool = False,
    uid: str | None = None,
    description: str = "T1 test",
    change: Callable[[Dataset, int], Any] | None = None,
) -> list[Path]:
    """Write ``(slices, rows, columns)`` as one file a slice, in order of the slices.

    Parameters
    ----------
    spacing : between slices, rows and columns, in mm
    origin : LPS mm of the first pixel of slice 0
    backwards : names and instance numbers run against the slices
    descending : slices run against the normal of their plane
    change : called with each dataset and the slice's number before it is written
    """
    folder.mkdir(parents=True, exist_ok=True)
    series, frame_of_reference = uid or generate_uid(), generate_uid()
    paths = []
    for number, plane in enumerate(voxels):
        count = len(voxels) - number if backwards else number + 1
        data = _make_header(MRImageStorage, generate_uid(), plane)
        data.SeriesDescription = description
        data.SeriesInstanceUID = series
        data.FrameOfReferenceUID = frame_of_reference
        data.InstanceNumber = count
        data.PixelSpacing = list(spacing[1:])
        data.SliceThickness = spacing[0]
        data.ImageOrientationPatient = [f"{v:.7f}" for v in directions]
        place = compute_position(directions, -number if descending else number, spacing, origin)
        data.ImagePositionPatient = [f"{v:.6f}" for v in place]
        if change is not None:
            change(data, number)
        paths.append(folder / f"IM{count:04d}.dcm")
        data.save_as(paths[-1], enforce_file_format=True)
    return paths


def write_series(
    folder: Path,
    orientation: Sequence[float] = AXIAL,
    *,
    descending: bool = False,
    without: Sequence[str] = (),
    **elements: Any,
) -> Volume:
    """Write a series named out of order, and give the scan as a reader gives it.

    Each slice holds its own number of noise, so that no two are alike.
    """
    columns, rows, depth = SHAPE
    voxels = np.stack(
        [np.random.default_rng(k).integers(0, 999, (rows, columns), "<u2") for k in range(depth)]
    )

    def fixed(image: Dataset, number: int) -> None:
        image.SOPInstanceUID = f"{ROOT}.3.{number + 1}"
        image.FrameOfReferenceUID = f"{ROOT}.5"
        image.SliceThickness = 3
        image.SpacingBetweenSlices = 0.5  # wrong, as some scanners have it
        _finish(image, elements, without)

    paths = save_series(
        folder, voxels, directions=orientation, spacing=SPACING, origin=ORIGIN,
        descending=descending, uid=f"{ROOT}.2", description=IDENTITY["SeriesDescription"],
        change=fixed,
    )  # fmt: skip
    for number, path in enumerate(paths):
        path.rename(folder / f"{(number * 5) % 7}.dcm")
    return read_series(folder)


def save_enhanced(
    path: Path,
    voxels: np.ndarray,
    orientation: Sequence[float] = OBLIQUE,
    *,
    order: Sequence[int] | None = None,
    shared: bool = True,
    rescale: Sequence[tuple[float, float]] = (),
    **elements: Any,
) -> np.ndarray:
    """Write ``(slices, rows, columns)`` as one multi-frame image; give (i, j, k) to RAS mm.

    Parameters
    ----------
    order : of the slices in the file
    shared : orientation and spacing stand once for all frames instead of with each of them
    rescale : slope and intercept of each slice
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    order = list(range(len(voxels)) if order is None else order)
    image = _make_header(EnhancedMRImageStorage, f"{ROOT}.4", np.stack([voxels[k] for k in order]))
    image.NumberOfFrames = len(order)
    plane, measures, common = Dataset(), Dataset(), Dataset()
    plane.ImageOrientationPatient = [f"{v:.7f}" for v in orientation]
    measures.PixelSpacing = list(SPACING[1:])
    measures.SliceThickness = 3
    frames = []
    for k in order:
        frame, place, content = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [f"{v:.6f}" for v in compute_position(orientation, k)]
        frame.PlanePositionSequence = [place]
        content.FrameAcquisitionDateTime = "20210306131415"
        content.FrameComments = "Frame-4711"
        frame.FrameContentSequence = [content]
        if rescale:
            scaling = Dataset()
            scaling.RescaleSlope, scaling.RescaleIntercept = rescale[k]
            scaling.RescaleType = "US"
            frame.PixelValueTransformationSequence = [scaling]
        holder = common if shared else frame
        holder.PlaneOrientationSequence = [plane]
        holder.PixelMeasuresSequence = [measures]
        frames.append(frame)
    image.SharedFunctionalGroupsSequence = [common]
    image.PerFrameFunctionalGroupsSequence = frames
    _finish(image, elements)
    image.save_as(path, enforce_file_format=True)
    return compute_affine(
        orientation, compute_position(orientation, 0), compute_normal(orientation) * SPACING[0]
    )


def write_enhanced(
    path: Path, orientation: Sequence[float] = OBLIQUE, *, shared: bool, **elements: Any
) -> Volume:
    """Write a multi-frame image with frames out of order, and give its grid as a reader does."""
    columns, rows, depth = SHAPE
    order = np.random.default_rng(1).permutation(depth).tolist()
    voxels = np.zeros((depth, rows, columns), "<u2")
    affine = save_enhanced(path, voxels, orientation, order=order, shared=shared, **elements)
    canonical, turned = to_canonical(np.zeros(SHAPE, np.uint16), affine)
    return Volume(canonical, turned, Source(path, SHAPE, affine, files=(path,)))


def read_series(folder: Path) -> Volume:
    """Scan of a folder of classic slices in the order of their instance numbers."""
    files = sorted(folder.glob("*.dcm"), key=lambda f: int(dcmread(f).InstanceNumber))
    images = [dcmread(file) for file in files]
    first, last = (np.array(images[n].ImagePositionPatient, float) for n in (0, -1))
    orientation = [float(v) for v in images[0].ImageOrientationPatient]
    step = (last - first) / (len(files) - 1)
    affine = compute_affine(orientation, first, step, [float(v) for v in images[0].PixelSpacing])
    array = np.stack([image.pixel_array.T for image in images], axis=-1)  # (i, j, k)
    canonical, turned = to_canonical(array, affine)
    assert nib.aff2axcodes(turned) == ("S", "P", "L")
    return Volume(canonical, turned, Source(folder, array.shape, affine, files=tuple(files)))


def compute_normal(orientation: Sequence[float]) -> np.ndarray:
    """Unit vector across a plane."""
    return np.cross(orientation[:3], orientation[3:])


def compute_position(
    orientation: Sequence[float],
    number: int,
    spacing: Sequence[float] = SPACING,
    origin: Sequence[float] = ORIGIN,
) -> np.ndarray:
    """LPS mm of the first pixel of a slice."""
    return np.array(origin) + number * spacing[0] * compute_normal(orientation)


def compute_affine(
    orientation: Sequence[float],
    first: np.ndarray,
    step: np.ndarray,
    pixel: Sequence[float] = SPACING[1:],
) -> np.ndarray:
    """(i, j, k) to RAS mm, from LPS millimeters; ``pixel`` is between rows and columns."""
    affine = np.eye(4)
    affine[:3, 0] = np.array(orientation[:3]) * pixel[1]
    affine[:3, 1] = np.array(orientation[3:]) * pixel[0]
    affine[:3, 2] = step
    affine[:3, 3] = first
    return LPS @ affine


def _make_header(kind: UID, uid: str, pixels: np.ndarray) -> Dataset:
    """Everything but the place: pixels ``(rows, columns)`` or ``(frames, rows, columns)``."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SpecificCharacterSet = "ISO_IR 100"
    image.SOPClassUID = kind
    image.SOPInstanceUID = uid
    image.StudyInstanceUID = f"{ROOT}.1"
    image.SeriesInstanceUID = f"{ROOT}.2"
    image.FrameOfReferenceUID = f"{ROOT}.5"
    image.Modality = "MR"
    image.Rows, image.Columns = pixels.shape[-2:]
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 8 * pixels.dtype.itemsize
    image.HighBit = image.BitsStored - 1
    image.PixelRepresentation = int(pixels.dtype.kind == "i")
    image.PixelData = np.ascontiguousarray(pixels).tobytes()
    for keyword, value in IDENTITY.items():
        setattr(image, keyword, value)
    image.add_new(0x00091001, "LO", "Private-4711")
    return image


def _finish(image: Dataset, elements: dict[str, Any], without: Sequence[str] = ()) -> None:
    for keyword, value in elements.items():
        setattr(image, keyword, value)
    for keyword in without:
        del image[keyword]
