"""Origins of exported masks: the table ``origins.csv``, and the terms of DICOM segmentations."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from napari_dycon.core.atomic import write_bytes
from napari_dycon.core.untrusted import read_bytes
from napari_dycon.exports.csv_table import encode_csv, escape_formula, format_csv
from napari_dycon.exports.result import ExportedMask
from napari_dycon.exports.selection import MaskOrigin
from napari_dycon.io.dicom.segmentation import AlgorithmType

FILE = "origins.csv"
COLUMNS = ("case", "file", "origin", "run", "status", "reviewed")
MAX_FILE_BYTES = 2**24


def write_origins(out: Path, masks: Sequence[ExportedMask]) -> Path:
    """Write ``origins.csv``, one row per mask; rows of other masks in the folder are kept."""
    path = out / FILE
    rows: dict[str, list[str]] = {
        mask.path.name: [
            escape_formula(mask.case),
            escape_formula(mask.path.name),
            mask.origin.value,
            mask.run or "",
            mask.status.display_name,
            "yes" if mask.is_reviewed else "no",
        ]
        for mask in masks
    }
    kept = {name: row for name, row in _read_rows(path).items() if name not in rows}
    table = sorted([*kept.values(), *rows.values()], key=lambda row: row[0])
    write_bytes(path, encode_csv(format_csv(COLUMNS, table)))
    return path


def _read_rows(path: Path) -> dict[str, list[str]]:
    """Read the rows of masks that are still in the folder, by file name; none of another table."""
    try:
        text = read_bytes(path, MAX_FILE_BYTES).decode("utf-8-sig")
        header, *rows = list(csv.reader(io.StringIO(text, newline="")))
    except (OSError, ValueError, csv.Error):  # missing, too large, or not a table
        return {}
    if tuple(header) != COLUMNS:
        return {}
    names = {escape_formula(file.name): file.name for file in path.parent.iterdir()}
    return {
        names[row[1]]: [escape_formula(cell) for cell in row]
        for row in rows
        if len(row) == len(COLUMNS) and row[1] in names
    }


def get_algorithm_type(
    origin: MaskOrigin, *, has_drawn_voxels: bool, has_accepted_voxels: bool
) -> AlgorithmType:
    """Determine the algorithm type of a segment, as DICOM defines it.

    Parameters
    ----------
    has_drawn_voxels : whether voxels of the segment come from the label
    has_accepted_voxels : whether a prediction, or a part of it, was accepted into the label
    """
    if origin is MaskOrigin.PREDICTED or (origin is MaskOrigin.COMPLETED and not has_drawn_voxels):
        return "AUTOMATIC"
    if origin is MaskOrigin.COMPLETED or has_accepted_voxels:
        return "SEMIAUTOMATIC"
    return "MANUAL"


def describe_content(origin: MaskOrigin, *, is_reviewed: bool) -> str:
    """Describe a mask in at most 64 characters, the limit of DICOM."""
    reviewed = "reviewed" if is_reviewed else "not reviewed"
    return f"{origin[0].upper()}{origin[1:]}; {reviewed}"
