"""Headers of DICOM images: the tags that distinguish series and slices.

Names, ids and dates of patients are not read. Positions are parsed in ``series_volumes``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_dycon.io.dicom.files import (
    damaged_file_error,
    header_text,
    read_file,
    suppress_warnings,
)
from napari_dycon.io.dicom.pixels import SCALE_TAGS

NON_IMAGE_MODALITIES = ("SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "REG", "FID")
PARAMETRIC_MAP = (
    "1.2.840.10008.5.1.4.1.1.30"  # a result, such as an uncertainty map written by this program
)
# Tags that may distinguish images at one position; the first one that does is used.
FRAME_DIMENSIONS = (
    "EchoNumbers",
    "TemporalPositionIdentifier",
    "DiffusionBValue",
    "AcquisitionNumber",
    "ImageType",
    "TriggerTime",
)
HEADER_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "Modality", "SeriesInstanceUID", "SeriesNumber",
    "SeriesDescription", "Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "SamplesPerPixel", "NumberOfFrames", *SCALE_TAGS, *FRAME_DIMENSIONS,
]  # fmt: skip


def read_header(path: Path) -> Any:
    """Read the header of a DICOM image.

    Returns
    -------
    the tags of ``HEADER_TAGS``, or ``None`` for DICOM files that are not images to segment

    Raises
    ------
    FileFormatError
        The file is damaged.
    """
    header = read_file(path, include_pixels=False, tags=HEADER_TAGS)
    with suppress_warnings():
        if "Rows" not in header and _is_image_header(header):
            raise damaged_file_error(path)  # truncated image
        if "Rows" not in header or header_text(header, "Modality") in NON_IMAGE_MODALITIES:
            return None
        if header_text(header, "SOPClassUID") == PARAMETRIC_MAP:
            return None
    return header


def _is_image_header(header: Any) -> bool:
    """Check by the file's meta information that it contains images other than screenshots."""
    try:
        name = str(header.file_meta.MediaStorageSOPClassUID.name)
    except AttributeError:
        return False
    except Exception:  # noqa: BLE001 - damaged meta information, parsed lazily by pydicom
        return True
    return name.endswith("Image Storage") and "Secondary Capture" not in name
