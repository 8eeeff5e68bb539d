"""Details of a case: size, spacing, orientation, sequence, files and volumes of the label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from napari_dycon import io
from napari_dycon.core.types import UNANNOTATED
from napari_dycon.engine.evaluation.label_comparison import count_label_values
from napari_dycon.errors import DyconError
from napari_dycon.io.dicom.acquisition import describe_acquisition
from napari_dycon.io.reading import SUFFIXES
from napari_dycon.project.models import Case
from napari_dycon.project.store import Project

AXIS_NAMES = {"R": "right", "L": "left", "A": "anterior", "P": "posterior", "S": "superior",
              "I": "inferior"}  # fmt: skip
MAX_OBLIQUE_DEGREES = 0.5  # below it slices count as parallel to the axes of the patient


@dataclass(frozen=True)
class CaseDetails:
    """Pairs of a name and a value, in the order in which they are shown."""

    case: Case
    rows: list[tuple[str, str]]
    folder: Path  # of the scan


def get_scan_folder(project: Project, case_id: str) -> Path:
    """Return the folder that contains the scan of a case."""
    path = project.image_paths(case_id)[0]
    return path if path.is_dir() else path.parent


def read_details(project: Project, case_id: str) -> CaseDetails:
    """Read the details of a case; the scan is read for its grid."""
    case = project.get_case(case_id)
    paths = list(dict.fromkeys(project.image_paths(case_id)))
    grid = project.read_grid(case_id)
    depth, height, width = grid.shape
    source_affine = grid.source.affine
    size, spacing = grid.source.shape, nib.affines.voxel_sizes(source_affine)
    extent = np.multiply(size, spacing)
    rows = [
        ("Name", case.display_name),
        *([("Name of its files", case.id)] if case.name else []),
        ("Size", f"{size[0]} × {size[1]} × {size[2]} voxels"),
        ("Spacing", f"{spacing[0]:.2f} × {spacing[1]:.2f} × {spacing[2]:.2f} mm"),
        ("Extent", f"{extent[0]:.0f} × {extent[1]:.0f} × {extent[2]:.0f} mm"),
        ("Slices", f"{depth} axial, {height} coronal, {width} sagittal"),
        ("Orientation", describe_orientation(source_affine)),
        ("Channels", ", ".join(project.channels)),
    ]
    for index, path in enumerate(paths):
        prefix = f"{project.channels[index]}: " if len(paths) > 1 else ""
        if not path.name.lower().endswith(SUFFIXES):  # DICOM
            rows += [(name, prefix + text) for name, text in describe_acquisition(path)]
    split = "validation only" if case.split == "validation" else "training"
    rows += [("Status", case.status.display_name), ("Used for", split)]
    if case.resampled:
        rows.append(("Slices read as", "resampled to regular spacing"))
    rows += [("Scan" if index == 0 else "", str(path)) for index, path in enumerate(paths)]
    rows += _describe_label(project, case_id)
    return CaseDetails(case, rows, get_scan_folder(project, case_id))


def describe_orientation(affine: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> str:
    """Describe the directions of a file's axes, and how oblique they are."""
    codes = nib.aff2axcodes(affine)
    names = ", ".join(f"to {AXIS_NAMES[code]}" for code in codes if code in AXIS_NAMES)
    degrees = float(np.degrees(nib.affines.obliquity(affine).max()))
    oblique = f"; oblique by {degrees:.1f}°" if degrees > MAX_OBLIQUE_DEGREES else ""
    return f"{''.join(code or '?' for code in codes)} ({names}){oblique}"


def _describe_label(project: Project, case_id: str) -> list[tuple[str, str]]:
    """Return the volume of each structure, and how much of the scan is annotated."""
    path = project.labels.path(case_id)
    if not path.exists():
        return [("Label", "none")]
    try:
        label = io.read_label(path)
    except DyconError as error:
        return [("Label", str(error))]
    counts = count_label_values(label.array)
    voxel_ml = float(np.prod(label.spacing_mm)) / 1000.0
    annotated = 1.0 - counts[UNANNOTATED] / label.array.size
    rows = [("Label", f"{annotated:.1%} of the scan annotated")]
    rows += [
        (info.name, f"{counts[info.value] * voxel_ml:.2f} ml")
        for info in project.classes
        if counts[info.value]
    ]
    return rows
