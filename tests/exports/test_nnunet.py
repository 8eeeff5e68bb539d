"""The nnU-Net raw layout passes nnU-Net's own check and contains no header texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from helpers.nifti_files import save_nifti
from scipy.spatial.transform import Rotation

from napari_dycon.errors import ConfigError, LabelError, UserError
from napari_dycon.exports.nnunet import write_nnunet
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.models import ClassInfo
from napari_dycon.project.store import Project

TURN = Rotation.from_euler("xyz", (8, -5, 172), degrees=True).as_matrix()
OBLIQUE = np.eye(4)
OBLIQUE[:3] = np.column_stack([TURN * (0.9, 1.1, 2.5), (30.0, -12.5, 7.0)])


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def read_dataset_json(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "dataset.json").read_text(encoding="utf-8")))


def check_dataset(folder: Path) -> None:
    """What nnU-Net asks of a data set, after its documentation and its own check."""
    about = read_dataset_json(folder)
    assert {"channel_names", "labels", "numTraining", "file_ending"} <= set(about)
    values = list(about["labels"].values())
    assert about["labels"]["background"] == 0
    assert sorted(values) == list(range(len(values)))
    assert about["labels"].get("ignore", max(values)) == max(values)
    channels = len(about["channel_names"])
    labels = list_names(folder / "labelsTr")
    cases = [name.removesuffix(about["file_ending"]) for name in labels]
    assert len(cases) == about["numTraining"]
    assert list_names(folder / "imagesTr") == sorted(
        f"{case}_{channel:04d}.nii.gz" for case in cases for channel in range(channels)
    )
    for case in cases:
        label = SimpleITK.ReadImage(str(folder / "labelsTr" / f"{case}.nii.gz"))
        assert set(np.unique(SimpleITK.GetArrayFromImage(label))) <= set(values)
        for channel in range(channels):
            image = SimpleITK.ReadImage(str(folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz"))
            assert image.GetSize() == label.GetSize()
            for one, other in (
                (image.GetSpacing(), label.GetSpacing()),
                (image.GetOrigin(), label.GetOrigin()),
                (image.GetDirection(), label.GetDirection()),
            ):
                assert np.allclose(one, other)


def test_the_folder_layout_is_that_of_nnunet(project: Project, tmp_path: Path) -> None:
    reported: list[tuple[int, int, str]] = []
    folder = write_nnunet(
        project, tmp_path / "raw", dataset_id=7, on_progress=lambda *values: reported.append(values)
    )
    assert folder == tmp_path / "raw" / "Dataset007_project"
    assert list_names(folder) == ["dataset.json", "imagesTr", "imagesTs", "labelsTr"]
    assert list_names(folder.parent) == [folder.name]
    assert list_names(folder / "labelsTr") == [f"scan-{i}.nii.gz" for i in range(3)]
    assert list_names(folder / "imagesTs") == [f"scan-{i}_0000.nii.gz" for i in range(3, 6)]
    about = read_dataset_json(folder)
    assert about["labels"] == {"background": 0, "box": 1}
    assert about["channel_names"] == {"0": "image"}
    assert reported[-1] == (6, 6, "scan-5")
    check_dataset(folder)


def test_voxels_and_grid_equal_those_of_the_source(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(-1000, 1000, (12, 14, 10)).astype(np.int16)
    label = (rng.random(array.shape) > 0.5).astype(np.uint8)
    source = save_nifti(tmp_path / "images" / "a.nii.gz", array, OBLIQUE)
    save_nifti(tmp_path / "labels" / "a.nii.gz", label, OBLIQUE)
    project = create_project(tmp_path / "p", tmp_path / "images", tmp_path / "labels")
    folder = write_nnunet(project, tmp_path / "raw")
    # Values far below zero are Hounsfield units, which nnU-Net knows by the channel's name.
    assert read_dataset_json(folder)["channel_names"] == {"0": "CT"}
    assert read_dataset_json(folder)["napari_dycon"]["original_channels"] == ["image"]
    image = nib.load(folder / "imagesTr" / "a_0000.nii.gz")
    assert np.array_equal(np.asarray(image.dataobj), array)
    assert np.array_equal(image.affine, nib.load(source).affine)
    assert np.array_equal(np.asarray(nib.load(folder / "labelsTr" / "a.nii.gz").dataobj), label)


def test_gaps_in_values_are_closed_and_recorded(tmp_path: Path, scans: Path) -> None:
    classes = [
        ClassInfo(value=4, name="late", color="#112233"),
        ClassInfo(value=2, name="early", color="#332211"),
    ]
    project = Project.create(tmp_path / "p", classes=classes)
    project.add_cases(sorted((scans / "images").iterdir())[:2])
    label = np.zeros(project.read_image("scan-0").shape, np.uint8)
    label[3:6], label[6:8] = 2, 4
    project.labels.save("scan-0", label)
    folder = write_nnunet(project, tmp_path / "raw")
    about = read_dataset_json(folder)
    assert about["labels"] == {"background": 0, "early": 1, "late": 2}
    assert about["napari_dycon"]["original_values"] == {"late": 4, "early": 2}
    written = np.asarray(nib.load(folder / "labelsTr" / "scan-0.nii.gz").dataobj)
    assert [int((written == v).sum()) for v in range(3)] == [
        int((label == v).sum()) for v in (0, 2, 4)
    ]
    check_dataset(folder)


def test_unannotated_voxels_are_ignored(project: Project, tmp_path: Path) -> None:
    label = np.full(project.read_image("scan-3").shape, 255, np.uint8)
    project.labels.save("scan-4", label)  # opened, nothing drawn
    label[5] = 0
    label[5, 4:8, 4:8] = 1
    project.labels.save("scan-3", label)
    folder = write_nnunet(project, tmp_path / "raw")
    assert read_dataset_json(folder)["labels"] == {"background": 0, "box": 1, "ignore": 2}
    written = np.asarray(nib.load(folder / "labelsTr" / "scan-3.nii.gz").dataobj)
    assert int((written == 2).sum()) == int((label == 255).sum())
    assert list_names(folder / "imagesTs") == ["scan-4_0000.nii.gz", "scan-5_0000.nii.gz"]
    check_dataset(folder)


def test_the_split_is_exported(project: Project, tmp_path: Path) -> None:
    project.set_split("scan-1", "validation")
    folder = write_nnunet(project, tmp_path / "raw")
    splits = json.loads((folder / "splits_final.json").read_text(encoding="utf-8"))
    assert splits == [{"train": ["scan-0", "scan-2"], "val": ["scan-1"]}]
    assert read_dataset_json(folder)["napari_dycon"]["cases"]["scan-1"]["split"] == "validation"


def test_several_channels_on_one_grid_and_no_free_text(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    files = []
    for channel in ("t1", "t2"):
        image = nib.Nifti1Image(rng.random((8, 9, 10), dtype=np.float32), OBLIQUE)
        image.header["descrip"] = b"Doe^Jane 1970"
        image.header["aux_file"] = b"Doe^Jane"
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Doe^Jane"))
        files.append(tmp_path / f"{channel}.nii.gz")
        nib.save(image, files[-1])
    project = Project.create(tmp_path / "p", channels=["T1", "T2"])
    project.add_cases([files, files[::-1]], ids=["a b.c_seg", "a_b_c_seg_"])
    label = np.zeros(project.read_image("a b.c_seg").shape, np.uint8)
    label[2:4, 2:4, 2:4] = 1
    project.labels.save("a b.c_seg", label)
    folder = write_nnunet(project, tmp_path / "raw", name="Two: channels/..")
    assert folder.name == "Dataset001_Two__channels"
    assert list_names(folder / "imagesTr") == ["a_b_c_seg__0000.nii.gz", "a_b_c_seg__0001.nii.gz"]
    assert list_names(folder / "imagesTs")[0] == "a_b_c_seg_-2_0000.nii.gz"
    assert read_dataset_json(folder)["channel_names"] == {"0": "T1", "1": "T2"}
    for channel, source in enumerate(files):
        path = folder / "imagesTr" / f"a_b_c_seg__{channel:04d}.nii.gz"
        image = nib.load(path)
        assert np.array_equal(np.asarray(image.dataobj), np.asarray(nib.load(source).dataobj))
        assert b"Doe" not in image.to_bytes()
    check_dataset(folder)


def test_failed_exports_are_reported_and_leave_no_files(project: Project, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    with pytest.raises(ConfigError, match="from 1 to 999, found 0"):
        write_nnunet(project, raw, dataset_id=0)
    project.update_class(1, name="ignore")
    with pytest.raises(LabelError, match="class name 'ignore' is reserved"):
        write_nnunet(project, raw)
    project.update_class(1, name="box")
    write_nnunet(project, raw)
    with pytest.raises(UserError, match="already contains Dataset001_project"):
        write_nnunet(project, raw, name="other")
    project.image_paths("scan-5")[0].unlink()
    with pytest.raises(UserError, match="scan of case scan-5 is missing"):
        write_nnunet(project, raw, dataset_id=2)
    assert list_names(raw) == ["Dataset001_project"]


def test_a_project_without_labels_cannot_be_exported(scans: Path, tmp_path: Path) -> None:
    project = create_project(tmp_path / "p", scans / "images")
    with pytest.raises(UserError, match="has no annotated case"):
        write_nnunet(project, tmp_path / "raw")
    label = np.full(project.read_image("scan-0").shape, 255, np.uint8)
    project.labels.save("scan-0", label, status="in_progress")
    with pytest.raises(UserError, match="none of them has annotated voxels"):
        write_nnunet(project, tmp_path / "raw")
    assert list_names(tmp_path / "raw") == []


def test_real_scans(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    data = real_data("hippocampus")
    for folder, count in (("images", 4), ("labels", 2)):
        (tmp_path / folder).mkdir()
        for file in sorted((data / folder).iterdir())[:count]:
            (tmp_path / folder / file.name).symlink_to(file)
    project = create_project(tmp_path / "p", tmp_path / "images", tmp_path / "labels")
    check_dataset(write_nnunet(project, tmp_path / "raw", name="Hippocampus"))
