"""Results that people place themselves must not take the place of scans, labels or predictions."""

from __future__ import annotations

from pathlib import Path

from napari_dycon.errors import UserError
from napari_dycon.io import is_scan
from napari_dycon.project.store import Project


def list_scan_files(project: Project) -> set[Path]:
    """All scans of a project, resolved; of a DICOM series one file, or its folder."""
    return {path.resolve() for case in project.cases for path in project.image_paths(case.id)}


def check_folder(folder: Path, project: Project) -> None:
    """Refuse a folder for results in which the project itself keeps files of the same names."""
    project_folders = [
        project.path / "labels",
        *(project.path / "predictions" / r.id for r in project.runs.list()),
    ]
    if folder.exists() and any(
        project_folder.exists() and folder.samefile(project_folder)
        for project_folder in project_folders
    ):
        raise UserError(
            f"{folder} holds the labels or predictions of {project.name} itself, which would be "
            "replaced. Choose another folder."
        )


def check_target(target: Path, scans: set[Path]) -> None:
    """Refuse a file for results that is a scan, or any file among those of a DICOM series.

    Parameters
    ----------
    scans : see ``list_scan_files``
    """
    target = target.resolve()
    series_folders = {path if path.is_dir() else path.parent for path in scans if not is_scan(path)}
    is_in_series = target.suffix.lower() == ".dcm" and target.parent in series_folders
    if target in scans or (is_in_series and target.exists()):
        raise UserError(f"The mask would replace the scan {target}. Choose another folder.")
