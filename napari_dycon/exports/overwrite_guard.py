"""Checks that results do not overwrite scans, labels or predictions."""

from __future__ import annotations

from pathlib import Path

from napari_dycon.errors import UserError
from napari_dycon.io import is_scan
from napari_dycon.project.store import Project


def list_scan_files(project: Project) -> set[Path]:
    """List the resolved paths of all scans; a DICOM series is listed as one file or its folder."""
    return {path.resolve() for case in project.cases for path in project.image_paths(case.id)}


def check_folder(folder: Path, project: Project) -> None:
    """Reject an output folder that holds the labels or predictions of the project."""
    project_folders = [
        project.path / "labels",
        *(project.path / "predictions" / r.id for r in project.runs.list()),
    ]
    if folder.exists() and any(
        project_folder.exists() and folder.samefile(project_folder)
        for project_folder in project_folders
    ):
        raise UserError(
            f"{folder} contains the labels or predictions of {project.name} itself, which would "
            "be overwritten. Choose another folder."
        )


def check_target(target: Path, scans: set[Path]) -> None:
    """Reject an output file that is a scan or would overwrite a file of a DICOM series.

    Parameters
    ----------
    scans : result of ``list_scan_files``
    """
    target = target.resolve()
    series_folders = {path if path.is_dir() else path.parent for path in scans if not is_scan(path)}
    is_in_series = target.suffix.lower() == ".dcm" and target.parent in series_folders
    if target in scans or (is_in_series and target.exists()):
        raise UserError(f"The mask would overwrite the scan {target}. Choose another folder.")
