"""Preview of the contents of a new project before it is created."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.dicom_files import make_voxels, save_series
from helpers.nifti_files import save_nifti

from napari_dycon.errors import UserError
from napari_dycon.project.importing import import_plan
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.importing.preview import preview_import, suggest_project_folder

VOXELS = np.random.default_rng(0).normal(size=(8, 9, 10)).astype(np.float32)
MASK = (VOXELS > 1).astype(np.uint8)


def test_a_folder_with_labels_is_described_without_reading_them(
    scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert preview_import(scans / "images").describe() == "6 cases, no labels."
    monkeypatch.setattr(import_plan, "present_values", None)
    found = preview_import(scans / "images", scans / "labels")
    assert found.describe() == "6 cases, 3 labels."
    found = preview_import(scans / "images", scans / "labels", ["box"])
    assert found.describe() == "6 cases, 3 labels; structure: box."


@pytest.mark.parametrize(
    ("key", "layout"),
    [("channel_names", "nnU-Net"), ("modality", "Medical Segmentation Decathlon")],
)
def test_a_known_layout_is_named(key: str, layout: str, tmp_path: Path) -> None:
    channels = {str(n): name for n, name in enumerate(("flair", "t1", "t1ce", "t2", "adc"))}
    labels = (
        {"background": 0, "edema": 1, "tumor": 2}
        if key == "channel_names"
        else {"0": "background", "1": "edema", "2": "tumor"}
    )
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "dataset.json").write_text(json.dumps({key: channels, "labels": labels}))
    for case in ("a", "b"):
        for channel in range(5):
            save_nifti(tmp_path / "imagesTr" / f"{case}_{channel:04d}.nii.gz", VOXELS)
    save_nifti(tmp_path / "labelsTr" / "a.nii.gz", MASK)
    assert preview_import(tmp_path).describe() == (
        "2 cases, 5 channels (flair, t1, t1ce, t2, …), 1 label; structures: edema, tumor; "
        f"{layout} layout."
    )


def test_patients_without_a_channel_are_told(tmp_path: Path) -> None:
    for patient, channels in (("anna", ("t1", "flair")), ("bert", ("t1",))):
        for channel in channels:
            save_nifti(tmp_path / patient / f"{channel}.nii.gz", VOXELS)
    found = preview_import(tmp_path, channels=["t1", "flair"])
    text = found.describe()
    assert text.startswith("1 case, 2 channels (t1, flair), no labels. 1 case left out: ")
    assert "flair" in text


def test_dicom_series_are_counted(tmp_path: Path) -> None:
    for patient in ("anna", "bert"):
        save_series(tmp_path / patient / "t1", make_voxels())
    assert preview_import(tmp_path).describe() == "2 cases, no labels."


def test_the_preview_agrees_with_the_project(scans: Path, tmp_path: Path) -> None:
    found = preview_import(scans / "images", scans / "labels", ["box"])
    project = create_project(tmp_path / "p", scans / "images", scans / "labels", ["box"])
    assert found.n_cases == len(project.cases)
    assert found.n_labels == len(project.labeled_cases())
    assert list(found.channels) == project.channels
    assert list(found.structures) == [info.name for info in project.classes]


def test_a_folder_without_scans_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="contains no scans"):
        preview_import(tmp_path)


def test_two_structures_of_one_name_are_an_error(scans: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match='Two structures are called "Box"'):
        preview_import(scans / "images", None, ["box", " Box"])
    with pytest.raises(UserError, match='Two structures are called "box"'):
        create_project(tmp_path / "p", scans / "images", scans / "labels", ["box", "box"])
    assert not (tmp_path / "p").exists()


def test_the_suggested_folder_is_new_and_tells_what_it_is(tmp_path: Path) -> None:
    images = tmp_path / "heart" / "scans"
    images.mkdir(parents=True)
    assert suggest_project_folder(images) == tmp_path / "heart" / "heart-dycon"
    (tmp_path / "heart" / "heart-dycon").mkdir()
    assert suggest_project_folder(images) == tmp_path / "heart" / "heart-dycon-2"
    assert suggest_project_folder(tmp_path / "heart") == tmp_path / "heart-dycon"
    nested = tmp_path / "liver" / "data" / "imagesTr"
    assert suggest_project_folder(nested) == nested.parent / "liver-dycon"
    root = Path(tmp_path.anchor)
    assert suggest_project_folder(root / "scans").name == "scans-dycon"
