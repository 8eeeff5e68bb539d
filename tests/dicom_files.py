"""Writing of small DICOM series for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

AXIAL = (1, 0, 0, 0, 1, 0)
CORONAL = (1, 0, 0, 0, 0, -1)
SAGITTAL = (0, 1, 0, 0, 0, -1)
A, B = 0.3, 0.4  # turned about two axes
OBLIQUE = (
    *(np.cos(A), np.sin(A), 0.0),
    *(-np.sin(A) * np.cos(B), np.cos(A) * np.cos(B), np.sin(B)),
)


def save_series(
    folder: Path,
    voxels: np.ndarray,
    *,
    directions: Sequence[float] = AXIAL,
    spacing: tuple[float, float, float] = (2.5, 0.9, 0.7),
    origin: Sequence[float] = (-30.0, 20.5, 100.0),
    backwards: bool = False,
    uid: str | None = None,
    change: Callable[[Dataset, int], Any] | None = None,
) -> list[Path]:
    """Write ``(slices, rows, columns)`` as one file a slice, in order of the slices.

    Parameters
    ----------
    spacing : between slices, rows and columns, in mm
    origin : LPS mm of the first pixel of slice 0
    backwards : names and instance numbers run against the slices
    change : called with each dataset and the slice's number before it is written
    """
    folder.mkdir(parents=True, exist_ok=True)
    row, column = np.array(directions[:3], float), np.array(directions[3:], float)
    normal = np.cross(row, column)
    series, frame_of_reference = uid or generate_uid(), generate_uid()
    paths = []
    for number, plane in enumerate(voxels):
        count = len(voxels) - number if backwards else number + 1
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        path = folder / f"IM{count:04d}.dcm"
        data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        data.PatientName, data.PatientID = "Secret^Name", "SECRET-ID"
        data.PatientBirthDate, data.StudyDate = "19500101", "20200102"
        data.Modality, data.SeriesDescription = "MR", "T1 test"
        data.SeriesInstanceUID, data.StudyInstanceUID = series, "1.2.3.4"
        data.FrameOfReferenceUID = frame_of_reference
        data.InstanceNumber = count
        data.Rows, data.Columns = plane.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 8 * plane.dtype.itemsize
        data.HighBit = data.BitsStored - 1
        data.PixelRepresentation = int(plane.dtype.kind == "i")
        data.PixelSpacing = [spacing[1], spacing[2]]
        data.SliceThickness = spacing[0]
        data.ImageOrientationPatient = [float(v) for v in directions]
        data.ImagePositionPatient = (np.array(origin) + number * spacing[0] * normal).tolist()
        data.PixelData = np.ascontiguousarray(plane).tobytes()
        if change is not None:
            change(data, number)
        data.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def values(shape: tuple[int, int, int] = (5, 6, 7), dtype: str = "int16") -> np.ndarray:
    """Voxels that are all different."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def compress(path: Path) -> None:
    """Pack a file's pixels without loss, by run lengths."""
    data = pydicom.dcmread(path)
    data.compress(pydicom.uid.RLELossless)
    data.save_as(path)
