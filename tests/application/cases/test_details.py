"""Details of a case: geometry, sequence and label, without data of the patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from helpers.dicom_files import make_voxels, save_series

from napari_dycon.application.cases.details import describe_orientation, read_details
from napari_dycon.io.dicom.acquisition import describe_acquisition
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.store import Project


def test_geometry_and_volumes_are_listed(project: Project) -> None:
    project.rename_case("scan-0", "first patient")
    details = read_details(project, "scan-0")
    rows = dict(details.rows)
    assert rows["Name"] == "first patient"
    assert rows["Name of its files"] == "scan-0"
    assert rows["Size"] == "20 × 22 × 18 voxels"
    assert rows["Slices"] == "18 axial, 22 coronal, 20 sagittal"
    voxel_ml = np.prod(project.read_grid("scan-0").spacing_mm) / 1000
    assert rows["box"] == f"{8**3 * voxel_ml:.2f} ml"
    assert rows["Label"] == "100.0% of the scan annotated"
    assert rows["Scan"].endswith("scan-0.nii.gz")
    assert details.folder == project.image_paths("scan-0")[0].parent
    assert dict(read_details(project, "scan-4").rows)["Label"] == "none"


@pytest.mark.parametrize(
    ("affine", "expected"),
    [
        (np.diag([1, 1, 1, 1.0]), "RAS (to right, to anterior, to superior)"),
        (np.diag([-1, -1, 2, 1.0]), "LPS (to left, to posterior, to superior)"),
    ],
)
def test_orientation_is_described(affine: np.ndarray, expected: str) -> None:
    assert describe_orientation(affine) == expected


def test_an_oblique_orientation_says_by_how_much() -> None:
    angle = np.radians(15)
    affine = np.eye(4)
    affine[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    assert describe_orientation(affine).endswith("oblique by 15.0°")


def test_the_sequence_is_listed_without_patient_data(tmp_path: Path) -> None:
    files = save_series(tmp_path / "in" / "anna" / "t1", make_voxels())
    texts = {
        "T1 MPRAGE sag": "T1 MPRAGE sag",
        "T1 Smithson": None,
        "T1 2024-03-05": None,
        "head 20240305": None,
    }
    for description, expected in texts.items():
        for file in files:
            data = pydicom.dcmread(file)
            data.PatientName, data.PatientID = "Smithson^Anna", "PID-4711"
            data.PatientBirthDate = data.StudyDate = "19700101"
            data.SeriesDescription, data.MagneticFieldStrength = description, 3.0
            data.save_as(file)
        rows = dict(describe_acquisition(files[0].parent))
        assert rows.get("Sequence") == expected
        assert rows["Field strength"] == "3.0 T"
        text = str(rows).lower()
        assert not any(secret in text for secret in ("smithson", "4711", "1970", "2024"))
    project = create_project(tmp_path / "project", tmp_path / "in")
    assert ("Field strength", "3.0 T") in read_details(project, project.cases[0].id).rows
