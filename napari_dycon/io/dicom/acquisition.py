"""How a DICOM series was acquired: modality, sequence and scanner, without patient data."""

from __future__ import annotations

import re
from pathlib import Path

from napari_dycon.core.text import escape_control_characters
from napari_dycon.errors import FileFormatError
from napari_dycon.io.dicom.files import header_text, read_file, suppress_warnings

MAX_FILES_TRIED = 20  # of a folder
MAX_TEXT = 80  # characters
ROWS = (
    ("Modality", ("Modality",), ""),
    ("Sequence", ("SeriesDescription", "SequenceName"), ""),
    ("Acquisition", ("MRAcquisitionType",), ""),
    ("Field strength", ("MagneticFieldStrength",), " T"),
    ("Repetition time", ("RepetitionTime",), " ms"),
    ("Echo time", ("EchoTime",), " ms"),
    ("Flip angle", ("FlipAngle",), "°"),
    ("Tube voltage", ("KVP",), " kV"),
    ("Kernel", ("ConvolutionKernel",), ""),
    ("Slice thickness", ("SliceThickness",), " mm"),
    ("Body part", ("BodyPartExamined",), ""),
    ("Scanner", ("ManufacturerModelName",), ""),
)
FREE_TEXT = {"SeriesDescription", "SequenceName", "BodyPartExamined"}
# Only compared with free text, which sometimes contains them; never returned.
IDENTITY_TAGS = ("PatientName", "PatientID", "OtherPatientNames", "AccessionNumber")
_DATE = re.compile(r"\d{6,}|\d{1,4}[-./]\d{1,2}[-./]\d{2,4}")


def describe_acquisition(path: Path) -> list[tuple[str, str]]:
    """Describe a DICOM series by pairs of a name and a value; empty for other files.

    Parameters
    ----------
    path : a file of the series, or its folder
    """
    files = sorted(item for item in path.iterdir() if item.is_file()) if path.is_dir() else [path]
    tags = [tag for _, names, _ in ROWS for tag in names]
    for file in files[:MAX_FILES_TRIED]:
        try:
            header = read_file(file, include_pixels=False, tags=[*tags, *IDENTITY_TAGS])
        except FileFormatError:
            continue
        with suppress_warnings():
            if header_text(header, "Modality"):
                values = {tag: header_text(header, tag) for tag in (*tags, *IDENTITY_TAGS)}
                return _format_rows(values)
    return []


def _format_rows(values: dict[str, str]) -> list[tuple[str, str]]:
    secrets = [
        part.lower()
        for tag in IDENTITY_TAGS
        for part in re.split(r"[\W_]+", values[tag])
        if len(part) > 2
    ]
    rows = []
    for title, tags, unit in ROWS:
        for tag in tags:
            text = " ".join(values[tag].split())[:MAX_TEXT]
            if not text or (tag in FREE_TEXT and _may_identify(text, secrets)):
                continue
            rows.append((title, escape_control_characters(f"{text}{unit}")))
            break
    return rows


def _may_identify(text: str, secrets: list[str]) -> bool:
    """Check whether free text contains a date, or a part of a name or number of the patient."""
    lowered = text.lower()
    return bool(_DATE.search(text)) or any(secret in lowered for secret in secrets)
