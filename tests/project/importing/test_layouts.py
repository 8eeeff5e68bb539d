"""Benchmark datasets in the layout in which they are distributed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from helpers.dicom_files import make_voxels, save_series
from helpers.nifti_files import SHAPE, make_label, save_nifti, save_scan
from helpers.tiny_runs import TINY

from napari_dycon.engine.config import make_config
from napari_dycon.engine.training.run import train
from napari_dycon.errors import UserError
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.importing.layouts.registry import detect_layout
from napari_dycon.project.store import Project

Run = Callable[..., tuple[int, str, str]]


def make_brats_dataset(root: Path) -> Path:
    for number, name in enumerate(("HGG/BraTS19_A_1", "HGG/BraTS19_B_1", "LGG/BraTS19_C_1")):
        case = name.split("/")[1]
        for channel in ("flair", "t1", "t1ce", "t2"):
            save_scan(root / name / f"{case}_{channel}.nii.gz", number)
        label = np.zeros(SHAPE, np.uint8)
        label[2, 2, 2:5] = (1, 2, 4)
        save_nifti(root / name / f"{case}_seg.nii.gz", label)
    return root


def test_brats_is_recognized(run: Run, tmp_path: Path) -> None:
    folder = make_brats_dataset(tmp_path / "MICCAI_BraTS_2019_Data_Training")
    project = create_project(tmp_path / "p", folder, n_labeled=2)
    assert [case.id for case in project.cases] == [
        "BraTS19_A_1", "BraTS19_B_1", "BraTS19_C_1",
    ]  # fmt: skip
    assert project.channels == ["flair", "t1", "t1ce", "t2"]
    assert [(c.value, c.name) for c in project.classes][-1] == (4, "enhancing tumor")
    assert [case.status for case in project.cases] == ["labeled", "labeled", "unlabeled"]
    assert project.read_image("BraTS19_C_1").array.shape[0] == 4
    assert set(np.unique(project.labels.read("BraTS19_A_1"))) == {0, 1, 2, 4}
    (folder / "HGG/BraTS19_B_1/BraTS19_B_1_t1ce.nii.gz").unlink()
    with pytest.raises(UserError, match="Case BraTS19_B_1 has no t1ce image"):
        create_project(tmp_path / "q", folder)
    assert not (tmp_path / "q").exists()
    code, out, err = run("new", tmp_path / "q", "--images", folder, "--max-labels", "1", "--json")
    assert code == 0
    assert "BraTS19_B_1 was left out: Case BraTS19_B_1 has no t1ce image" in err.replace("\n", " ")
    assert [c["id"] for c in json.loads(out)["cases"]] == ["BraTS19_A_1", "BraTS19_C_1"]
    others = create_project(tmp_path / "r", folder, channels=["t1", "flair"])
    assert len(others.cases) == 3  # t1ce is not wanted, and may be lacking


@pytest.mark.parametrize("place", ["ses-0001/dwi", "ses-0001", "rawdata"])
def test_isles_is_recognized(tmp_path: Path, place: str) -> None:
    root = tmp_path / "ISLES-2022"
    for number in (1, 2):
        name = f"sub-strokecase000{number}"
        dwi = root / name / place
        if "rawdata" in place:
            dwi = root / "rawdata" / name / "ses-0001"
        for channel in ("dwi", "adc"):
            save_scan(dwi / f"{name}_ses-0001_{channel}.nii.gz", number)
        label = np.zeros(SHAPE, np.uint8)
        label[3, 3, 3] = 1
        below = root / "derivatives" / name / "ses-0001"
        save_nifti(below / f"{name}_ses-0001_msk.nii.gz", label)
    project = create_project(tmp_path / "p", root, n_labeled=1)
    assert [(c.id, c.status) for c in project.cases] == [
        ("sub-strokecase0001", "labeled"),
        ("sub-strokecase0002", "unlabeled"),
    ]
    assert project.channels == ["dwi", "adc"]
    assert [c.name for c in project.classes] == ["infarct"]


def test_the_extraction_folder_of_a_dataset_is_recognized(tmp_path: Path) -> None:
    make_brats_dataset(tmp_path / "unpacked" / "MICCAI_BraTS_2019_Data_Training")
    project = create_project(tmp_path / "p", tmp_path / "unpacked", n_labeled=2)
    assert [case.id for case in project.cases] == ["BraTS19_A_1", "BraTS19_B_1", "BraTS19_C_1"]
    make_brats_dataset(tmp_path / "unpacked" / "MICCAI_BraTS_2019_Data_Validation")
    with pytest.raises(UserError, match=r"2 datasets: MICCAI_BraTS_2019_Data_Training, .*Choose"):
        create_project(tmp_path / "q", tmp_path / "unpacked")


def test_a_published_dataset_can_be_predicted(run: Run, tmp_path: Path) -> None:
    folder = make_brats_dataset(tmp_path / "BraTS")
    project = create_project(tmp_path / "p", folder, channels=["t1", "flair"], n_labeled=2)
    list(train(project, make_config("supervised", **TINY)))
    code, out, _ = run("predict", project.path, "--images", folder, "--json")
    assert code == 0
    events = [json.loads(line) for line in out.splitlines()]
    done = [e["case"] for e in events if e["event"] == "predicted"]
    assert done == [c.id for c in project.cases]
    own = project.path / "predictions"
    assert run("predict", project.path)[0] == 0
    for case in project.cases:
        (there,) = own.glob(f"*-BraTS/{case.id}.nii.gz")
        here = own / project.runs.get().id / f"{case.id}.nii.gz"
        assert np.array_equal(nib.load(there).dataobj, nib.load(here).dataobj)
    (folder / "HGG/BraTS19_A_1/BraTS19_A_1_t2.nii.gz").unlink()  # not wanted
    (folder / "HGG/BraTS19_B_1/BraTS19_B_1_t1.nii.gz").unlink()
    code, _, err = run("predict", project.path, "--images", folder, "--out", tmp_path / "o")
    assert code == 2
    assert "Case BraTS19_B_1 has no t1 image; expected one file each for t1, flair" in err
    assert {p.name for p in (tmp_path / "o").glob("BraTS19_?_1.nii.gz")} == {
        "BraTS19_A_1.nii.gz", "BraTS19_C_1.nii.gz",
    }  # fmt: skip
    for name in ("A", "B"):
        make_brats_dataset(tmp_path / "both" / name)
    code, _, err = run("predict", project.path, "--images", tmp_path / "both")
    assert code == 2
    assert "contains 2 datasets: A, B. Choose one" in err


def test_plain_folders_are_not_recognized_as_a_benchmark(scans: Path) -> None:
    assert detect_layout(scans) is None
    assert detect_layout(scans / "images") is None
    project = create_project(
        scans.parent / "q", scans / "images", scans / "labels", ["box"], n_labeled=1
    )
    assert [c.id for c in project.cases if c.status == "labeled"] == ["scan-0"]


def test_the_left_atrium_dataset_is_recognized(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "2018 challenge"
    voxels = {
        "lgemri": np.random.default_rng(0).integers(0, 200, SHAPE),
        "laendo": make_label(1, 1) * 255,
        "lawall": make_label(1) * 255,
    }
    parts = {"0RZDK210": "Training Set", "1D7CUD17": "Training Set", "4498JYJH": "Testing Set"}
    for name, part in parts.items():
        folder = root / part / name
        folder.mkdir(parents=True)
        for file, array in voxels.items():
            image = sitk.GetImageFromArray(array.astype(np.uint8))
            image.SetSpacing([0.625] * 3)
            sitk.WriteImage(image, folder / f"{file}.nrrd", True)
    code, out, err = run("new", tmp_path / "p", "--images", root, "--json")
    assert code == 0
    assert "1 of the scans are test images of Left atrium 2018." in out + err
    assert [(c["id"], c["status"]) for c in json.loads(out)["cases"]] == [
        ("4498JYJH", "unlabeled"),
        ("0RZDK210", "labeled"),
        ("1D7CUD17", "labeled"),
    ]
    project = Project.open(tmp_path / "p")
    assert np.unique(project.labels.read("0RZDK210"), return_counts=True)[1].tolist() == [334, 2]
    inner = create_project(tmp_path / "q", root / "Training Set", n_labeled=1)
    assert [c.status for c in inner.cases] == ["labeled", "unlabeled"]
    tests = create_project(tmp_path / "r", root / "Testing Set")
    assert [(c.id, c.status) for c in tests.cases] == [("4498JYJH", "labeled")]
    shutil.copytree(root / "Training Set" / "0RZDK210", root / "Testing Set" / "0RZDK210")
    with pytest.raises(UserError, match=r"case 0RZDK210 twice, as Testing Set/0RZDK210/lgemri"):
        detect_layout(root)


def test_pancreas_ct_is_recognized(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "manifest-1599750808610"
    for number in (1, 2):
        deep = root / "Pancreas-CT" / f"PANCREAS_{number:04d}"
        deep = deep / "11-24-2015-PANCREAS0001-Pancreas-18957" / "Pancreas-63502"

        def hounsfield(data: Any, number: int) -> None:
            data.Modality, data.RescaleIntercept, data.RescaleSlope = "CT", -1024, 1

        save_series(deep, make_voxels(dtype="uint16"), change=hounsfield, description="Pancreas")
    label = sitk.GetImageFromArray((make_voxels() % 7 == 0).astype(np.uint8))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(deep)))
    label.CopyInformation(reader.Execute())
    labels = root / "TCIA_pancreas_labels-02-05-2017"
    labels.mkdir()
    sitk.WriteImage(label, labels / "label0002.nii.gz")
    code, out, err = run("new", tmp_path / "p", "--images", root, "--json")
    assert code == 0, err
    assert [(c["id"], c["status"]) for c in json.loads(out)["cases"]] == [
        ("PANCREAS_0001", "unlabeled"),
        ("PANCREAS_0002", "labeled"),
    ]
    project = Project.open(tmp_path / "p")
    image, drawn = project.read_image("PANCREAS_0002"), project.labels.read("PANCREAS_0002")
    assert np.all((image.array[drawn == 1] + 1024) % 7 == 0)
    assert project.channels == ["CT"]
    # Labels without a place, as they once were handed out, are not put anywhere by guess.
    save_nifti(labels / "label0002.nii.gz", (make_voxels() % 7 == 0).astype(np.uint8), np.eye(4))
    code, _, err = run("new", tmp_path / "q", "--images", root)
    assert code == 2
    assert "Label label0002.nii.gz does not fit" in err.replace("\n", " ")
    save_series(deep.parent / "other", make_voxels())
    code, _, err = run("new", tmp_path / "q", "--images", root)
    assert code == 2
    assert "PANCREAS_0002 contains 2 series; expected one" in err.replace("\n", " ")
