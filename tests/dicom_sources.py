"""Small DICOM series written and read back with pydicom alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage

from napari_dycon.project.volume import Source, Volume, to_canonical

# Directions of a row (to the next column) and of a column (to the next row), LPS.
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
OBLIQUE = (0.9396926, 0.3420201, 0.0, -0.2620026, 0.7198463, -0.6427876)
SPACING = (1.25, 0.75, 3.5)  # between rows, between columns, between slices; mm
SHAPE = (9, 7, 6)  # columns, rows, slices
ORIGIN = np.array([-31.5, 12.25, 7.125])
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


def normal(orientation: Sequence[float]) -> np.ndarray:
    return np.cross(orientation[:3], orientation[3:])


def position(orientation: Sequence[float], k: int, descending: bool) -> np.ndarray:
    return ORIGIN + normal(orientation) * SPACING[2] * (-k if descending else k)


def write_series(
    folder: Path,
    orientation: Sequence[float] = AXIAL,
    *,
    descending: bool = False,
    without: Sequence[str] = (),
    **values: Any,
) -> Volume:
    """Write one file a slice, named out of order, and give the scan as a reader gives it.

    ``descending`` numbers the slices against the normal of their plane. Each slice holds its own
    number of noise, so that no two are alike.
    """
    folder.mkdir(parents=True, exist_ok=True)
    columns, rows, depth = SHAPE
    for k in range(depth):
        image = _header(MRImageStorage, f"{ROOT}.3.{k + 1}")
        image.InstanceNumber = k + 1
        image.ImageOrientationPatient = [f"{v:.7f}" for v in orientation]
        image.ImagePositionPatient = [f"{v:.6f}" for v in position(orientation, k, descending)]
        image.PixelSpacing = list(SPACING[:2])
        image.SliceThickness = 3
        image.SpacingBetweenSlices = 0.5  # wrong, as some scanners have it
        image.PixelData = (
            np.random.default_rng(k).integers(0, 999, (rows, columns), "<u2").tobytes()
        )
        _finish(image, values, without)
        image.save_as(folder / f"{(k * 5) % 7}.dcm", enforce_file_format=True)
    return read_series(folder)


def write_enhanced(
    path: Path, orientation: Sequence[float] = OBLIQUE, *, shared: bool, **values: Any
) -> Volume:
    """Write a multi-frame image whose frames lie out of order in the file.

    Orientation and spacing stand once for all frames (``shared``) or with each of them.
    """
    columns, rows, depth = SHAPE
    order = np.random.default_rng(1).permutation(depth)
    image = _header(EnhancedMRImageStorage, f"{ROOT}.4")
    image.NumberOfFrames = depth
    plane, measures = Dataset(), Dataset()
    plane.ImageOrientationPatient = [f"{v:.7f}" for v in orientation]
    measures.PixelSpacing = list(SPACING[:2])
    measures.SliceThickness = 3
    common = Dataset()
    frames = []
    for k in order:
        frame = Dataset()
        place = Dataset()
        place.ImagePositionPatient = [f"{v:.6f}" for v in position(orientation, int(k), False)]
        frame.PlanePositionSequence = [place]
        content = Dataset()
        content.FrameAcquisitionDateTime = "20210306131415"
        content.FrameComments = "Frame-4711"
        frame.FrameContentSequence = [content]
        holder = common if shared else frame
        holder.PlaneOrientationSequence = [plane]
        holder.PixelMeasuresSequence = [measures]
        frames.append(frame)
    image.SharedFunctionalGroupsSequence = [common]
    image.PerFrameFunctionalGroupsSequence = frames
    image.PixelData = np.zeros((depth, rows, columns), "<u2").tobytes()
    _finish(image, values)
    image.save_as(path, enforce_file_format=True)
    affine = LPS @ _affine(orientation, position(orientation, 0, False), normal(orientation))
    array = np.zeros(SHAPE, np.uint16)
    canonical, turned = to_canonical(array, affine)
    return Volume(canonical, turned, Source(path, SHAPE, affine, files=(path,)))


def read_series(folder: Path) -> Volume:
    """Scan of a folder of classic slices in the order of their instance numbers."""
    files = sorted(folder.glob("*.dcm"), key=lambda f: int(dcmread(f).InstanceNumber))
    images = [dcmread(file) for file in files]
    first, last = (np.array(images[n].ImagePositionPatient, float) for n in (0, -1))
    affine = np.eye(4)
    orientation = np.array(images[0].ImageOrientationPatient, float)
    down, across = (float(v) for v in images[0].PixelSpacing)
    affine[:3, 0] = orientation[:3] * across
    affine[:3, 1] = orientation[3:] * down
    affine[:3, 2] = (last - first) / (len(files) - 1)
    affine[:3, 3] = first
    affine = LPS @ affine
    array = np.stack([image.pixel_array.T for image in images], axis=-1)  # (i, j, k)
    canonical, turned = to_canonical(array, affine)
    assert nib.aff2axcodes(turned) == ("S", "P", "L")
    return Volume(canonical, turned, Source(folder, array.shape, affine, files=tuple(files)))


def _affine(orientation: Sequence[float], first: np.ndarray, way: np.ndarray) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, 0] = np.array(orientation[:3]) * SPACING[1]
    affine[:3, 1] = np.array(orientation[3:]) * SPACING[0]
    affine[:3, 2] = way * SPACING[2]
    affine[:3, 3] = first
    return affine


def _header(kind: UID, uid: str) -> Dataset:
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
    columns, rows, _ = SHAPE
    image.Rows, image.Columns = rows, columns
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit = 15
    image.PixelRepresentation = 0
    for keyword, value in IDENTITY.items():
        setattr(image, keyword, value)
    image.add_new(0x00091001, "LO", "Private-4711")
    return image


def _finish(image: Dataset, values: dict[str, Any], without: Sequence[str] = ()) -> None:
    for keyword, value in values.items():
        setattr(image, keyword, value)
    for keyword in without:
        del image[keyword]
