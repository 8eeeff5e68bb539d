"""Benchmark layouts, made up small, become projects with their channels and labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nifti_files import save_nifti

from napari_dycon.errors import UserError
from napari_dycon.project.importers import project_from_folder
from napari_dycon.project.layouts import recognise

SHAPE = (6, 7, 8)


def scan(path: Path, seed: int) -> Path:
    return save_nifti(path, np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32))


def brats(root: Path) -> Path:
    for number, name in enumerate(("HGG/BraTS19_A_1", "HGG/BraTS19_B_1", "LGG/BraTS19_C_1")):
        case = name.split("/")[1]
        for channel in ("flair", "t1", "t1ce", "t2"):
            scan(root / name / f"{case}_{channel}.nii.gz", number)
        label = np.zeros(SHAPE, np.uint8)
        label[2, 2, 2:5] = (1, 2, 4)
        save_nifti(root / name / f"{case}_seg.nii.gz", label)
    return root


def test_brats(tmp_path: Path) -> None:
    folder = brats(tmp_path / "MICCAI_BraTS_2019_Data_Training")
    project = project_from_folder(tmp_path / "p", folder, labelled=2)
    assert [case.id for case in project.cases] == [
        "BraTS19_A_1", "BraTS19_B_1", "BraTS19_C_1",
    ]  # fmt: skip
    assert project.channels == ["flair", "t1", "t1ce", "t2"]
    assert [(c.value, c.name) for c in project.classes][-1] == (4, "enhancing tumour")
    assert [case.status for case in project.cases] == ["labelled", "labelled", "unlabelled"]
    assert project.read_image("BraTS19_C_1").array.shape[0] == 4
    assert set(np.unique(project.read_label("BraTS19_A_1"))) == {0, 1, 2, 4}
    (folder / "HGG/BraTS19_B_1/BraTS19_B_1_t1ce.nii.gz").unlink()
    with pytest.raises(UserError, match="Case BraTS19_B_1 has no t1ce image"):
        project_from_folder(tmp_path / "q", folder)
    assert not (tmp_path / "q").exists()


def test_isles(tmp_path: Path) -> None:
    root = tmp_path / "ISLES-2022"
    for number in (1, 2):
        name = f"sub-strokecase000{number}"
        dwi = root / name / "ses-0001" / "dwi"
        for channel in ("dwi", "adc"):
            scan(dwi / f"{name}_ses-0001_{channel}.nii.gz", number)
        label = np.zeros(SHAPE, np.uint8)
        label[3, 3, 3] = 1
        below = root / "derivatives" / name / "ses-0001"
        save_nifti(below / f"{name}_ses-0001_msk.nii.gz", label)
    project = project_from_folder(tmp_path / "p", root, labelled=1)
    assert [(c.id, c.status) for c in project.cases] == [
        ("sub-strokecase0001", "labelled"),
        ("sub-strokecase0002", "unlabelled"),
    ]
    assert project.channels == ["dwi", "adc"]
    assert [c.name for c in project.classes] == ["infarct"]


def test_plain_folders_are_no_benchmark(scans: Path) -> None:
    assert recognise(scans) is None
    assert recognise(scans / "images") is None
    project = project_from_folder(
        scans.parent / "q", scans / "images", scans / "labels", ["box"], labelled=1
    )
    assert [c.id for c in project.cases if c.status == "labelled"] == ["scan-0"]
