"""Discovery of channels: numbered files, 4D files, folders and patients."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers.dicom_files import make_voxels, save_series
from helpers.nifti_files import save_nifti
from helpers.scan_folders import list_names, save_scan, train_and_predict

from napari_dycon.errors import FileFormatError, GeometryError, UserError
from napari_dycon.io import read_volume, write_mask
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.importing.discovery import (
    find_scans,
    read_scan,
)
from napari_dycon.project.importing.patient_folders import find_patient_folders
from napari_dycon.project.store import Project

Run = Callable[..., tuple[int, str, str]]
SHAPE = (6, 7, 8)


def test_numbered_files_are_channels(tmp_path: Path) -> None:
    for case in ("a", "b_1"):
        for number in (0, 1):
            save_scan(tmp_path / f"{case}_{number:04d}.nii.gz")
    (tmp_path / "._a_0000.nii.gz").write_bytes(b"of a Mac")
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "folder.nii").mkdir()  # some programs unpack into a folder of the file's name
    found = find_scans(tmp_path, "images")
    assert [(s.name, [p.name for p in s.images]) for s in found] == [
        ("a", ["a_0000.nii.gz", "a_0001.nii.gz"]),
        ("b_1", ["b_1_0000.nii.gz", "b_1_0001.nii.gz"]),
    ]
    (tmp_path / "a_0001.nii.gz").unlink()
    with pytest.raises(UserError, match=r"Case a has no channel 0001; expected the files a_0000, "):
        find_scans(tmp_path, "images")
    save_scan(tmp_path / "a_0001.nii.gz")
    save_scan(tmp_path / "atlas.nii.gz")
    with pytest.raises(UserError, match=r"atlas.nii.gz is not named like .* a_0000.nii.gz\."):
        find_scans(tmp_path, "images")


def test_numbers_may_count_scans(tmp_path: Path) -> None:
    for number in range(9):
        save_scan(tmp_path / "many" / f"scan_{number:04d}.nii.gz")
    assert len(list_names(tmp_path / "many")) == 9
    for number in range(3):
        save_scan(tmp_path / "few" / f"scan_{number:04d}.nii.gz")
    assert list_names(tmp_path / "few") == ["scan"]  # no evidence for channels
    label = np.zeros(SHAPE, np.uint8)
    label[2, 2] = 1
    save_nifti(tmp_path / "labels" / "scan_0001.nii.gz", label)
    project = create_project(tmp_path / "p", tmp_path / "few", tmp_path / "labels")
    assert [(c.id, c.status) for c in project.cases] == [
        ("scan_0000", "unlabeled"),
        ("scan_0001", "labeled"),
        ("scan_0002", "unlabeled"),
    ]


def test_a_4d_file_holds_channels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    affine = np.array([[0, -1.1, 0, 5], [0.9, 0, 0, -4], [0, 0, 2, 3], [0, 0, 0, 1.0]])
    voxels = rng.integers(0, 900, (*SHAPE, 3)).astype(np.int16)
    path = save_nifti(tmp_path / "images" / "a.nii.gz", voxels, affine)
    (found,) = find_scans(path.parent, "images")
    assert [p.name for p in found.images] == [f"a.nii.gz#{n}" for n in range(3)]
    volume = read_scan(found.images, "a")
    for number in range(3):
        alone = save_nifti(tmp_path / "alone.nii.gz", voxels[..., number], affine)
        expected = read_volume(alone)
        assert np.array_equal(volume.array[number], expected.array)
        assert np.array_equal(volume.affine, expected.affine)
        one = read_volume(found.images[number])
        assert one.array.dtype == np.int16
    write_mask(np.ones(volume.shape, np.uint8), reference=volume, path=tmp_path / "mask.nii.gz")
    mask = nib.load(tmp_path / "mask.nii.gz")
    assert mask.shape == SHAPE
    assert np.allclose(mask.affine, nib.load(path).affine)
    with pytest.raises(FileFormatError, match=r"a.nii.gz is 4D .* Split it into one file"):
        read_volume(path)
    with pytest.raises(FileFormatError, match=r"has 3 channels; expected at least 4"):
        read_volume(f"{path}#3")
    with pytest.raises(FileFormatError, match=r"alone.nii.gz has 1 channel"):
        read_volume(tmp_path / "alone.nii.gz#1")
    save_nifti(path, np.zeros((*SHAPE, 30), np.int16))
    with pytest.raises(FileFormatError, match="is 4D"):  # time points
        create_project(tmp_path / "p", path.parent)
    save_scan(tmp_path / "3d" / "a.nii.gz")
    with pytest.raises(FileFormatError, match="is 4D"):  # a label has no channels
        create_project(tmp_path / "p", tmp_path / "3d", path.parent)


def test_scaled_4d_files_and_trailing_axes(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 90, (*SHAPE, 2, 1)).astype(np.int16)
    image = nib.Nifti1Image(voxels, np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    nib.save(image, tmp_path / "a.nii")
    stored = nib.load(tmp_path / "a.nii")
    (found,) = find_scans(tmp_path, "images")
    volume = read_scan(found.images, "a")
    assert volume.channels == 2
    assert np.isclose(volume.array.sum(), np.asarray(stored.dataobj).sum(), rtol=1e-4)


def test_a_project_can_be_created_from_4d_files(run: Run, tmp_path: Path) -> None:
    for number in range(3):
        label = np.zeros((18, 20, 16), np.uint8)
        label[4:12, 4 + number : 12, 4:12] = 1
        noise = np.random.default_rng(number).normal(size=(*label.shape, 2))
        voxels = (noise + label[..., None] * [3, -3]).astype(np.float32)
        save_nifti(tmp_path / "images" / f"s{number}.nii.gz", voxels)
        save_nifti(tmp_path / "labels" / f"s{number}.nii.gz", label)
    folders = ("--images", tmp_path / "images", "--labels", tmp_path / "labels")
    code, out, _ = run("new", tmp_path / "p", *folders, "--max-labels", 2, "--json")
    assert code == 0
    assert len(json.loads(out)["cases"]) == 3
    project = Project.open(tmp_path / "p")
    assert project.get_case("s2").images == ["../images/s2.nii.gz#0", "../images/s2.nii.gz#1"]
    assert project.image_paths("s2") == [tmp_path / "images" / "s2.nii.gz"] * 2
    train_and_predict(project, "s2")
    (tmp_path / "moved").mkdir()
    shutil.move(tmp_path / "p", tmp_path / "moved" / "p")
    shutil.move(tmp_path / "images", tmp_path / "moved" / "images")
    moved = Project.open(tmp_path / "moved" / "p")
    assert moved.read_image("s1").array.shape[0] == 2
    out_ = tmp_path / "out"
    code, _, err = run(
        "predict", moved.path, "--images", moved.path.parent / "images", "--out", out_
    )
    assert code == 0, err
    assert nib.load(out_ / "s0.nii.gz").shape == (18, 20, 16)
    nib.save(nib.Nifti1Image(noise, None), moved.path.parent / "images" / "nowhere.nii")
    folders = ("--images", moved.path.parent / "images", "--out", tmp_path / "again")
    code, out, err = run("predict", moved.path, *folders, "--json")
    assert code == 0
    assert [json.loads(line)["event"] for line in out.splitlines()].count("predicted") == 4
    assert "nowhere.nii does not specify its orientation" in err.replace("\n", " ")
    code, _, err = run(
        "predict", moved.path, "--images", moved.path.parent / "images",
        "--out", moved.path.parent / "images",
    )  # fmt: skip
    assert code == 2
    assert "would overwrite the scan" in err


@pytest.fixture
def patient_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "patients"
    for number, patient in enumerate(("p1", "p2 Ä")):
        for channel in ("t1", "t1ce", "flair", "T1_Gd"):
            save_scan(folder / patient / f"{patient}_{channel}.nii.gz", number)
    (folder / ".hidden").mkdir()
    (folder / "empty").mkdir()
    (folder / "readme.txt").write_text("nothing")
    return folder


def test_channels_are_matched_by_name(run: Run, patient_folder: Path, tmp_path: Path) -> None:
    code, out, _ = run(
        "new", tmp_path / "p", "--images", patient_folder, "--channels", "T1, flair", "--json"
    )
    assert code == 0
    made = json.loads(out)
    assert Project.open(tmp_path / "p").channels == ["T1", "flair"]
    files = [[Path(image).name for image in case["images"]] for case in made["cases"]]
    assert files == [
        ["p1_t1.nii.gz", "p1_flair.nii.gz"],
        ["p2 Ä_t1.nii.gz", "p2 Ä_flair.nii.gz"],
    ]
    assert find_patient_folders(patient_folder, ["t1 gd"])[0].images[0].name == "p1_T1_Gd.nii.gz"


def test_mismatched_channels_are_refused(run: Run, patient_folder: Path, tmp_path: Path) -> None:
    def refused(words: str, channels: str, images: Path = patient_folder) -> None:
        code, out, err = run("new", tmp_path / "p", "--images", images, "--channels", channels)
        assert (code, out) == (2, ""), err
        assert words in err.replace("\n", " "), err
        assert not (tmp_path / "p").exists()

    refused("Folder p1 has no scans for the channel 'dwi'", "t1,dwi")
    refused("Found: p1_T1_Gd, p1_flair, p1_t1, p1_t1ce.", "t1,dwi")
    refused("one scan for several of the channels t1, T1", "t1,T1")
    refused("has no name", "t1,")
    refused("Folder p1 has no scans for the channel '+'", "+")
    (patient_folder / "p1" / "p1_t1.nii.gz").unlink()
    (patient_folder / "p1" / "p1_T1_Gd.nii.gz").unlink()
    code, out, err = run(
        "new", tmp_path / "q", "--images", patient_folder, "--channels", "t1,flair", "--json"
    )
    assert code == 0
    assert [case["id"] for case in json.loads(out)["cases"]] == ["p2 Ä"]
    assert "p1 was left out: Folder p1 has no scans for the channel 't1'" in err  # t1ce is another
    shutil.rmtree(patient_folder / "p2 Ä")
    refused("Folder p1 has no scans for the channel 't1'", "t1,flair")
    (tmp_path / "flat").mkdir()
    refused("no subfolders with scans", "t1", tmp_path / "flat")
    save_scan(tmp_path / "flat" / "p1_t1.nii.gz")
    refused("Expected one folder per patient", "t1,flair", tmp_path / "flat")


def test_channels_of_dicom_patients_are_matched(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        for number, description in enumerate(("T1 MPRAGE", "T1 MPRAGE post", "t2_flair/dark")):
            folder = tmp_path / "in" / patient / "study" / str(number)
            save_series(folder, make_voxels() + number, description=description)
        save_series(tmp_path / "in" / patient / "shot", make_voxels()[:1], description="flair")
    found = find_patient_folders(tmp_path / "in", ["t1", "flair"])[:1]
    assert [p.parent.name for p in found[0].images] == ["0", "2"]
    project = create_project(tmp_path / "p", tmp_path / "in", channels=["flair", "t1 post"])
    assert project.channels == ["flair", "t1 post"]
    assert project.read_image("p2").array.min(axis=(1, 2, 3)).tolist() == [2, 1]
    with pytest.raises(UserError, match=r"no scans .* 'adc'.*T1 MPRAGE, T1 MPRAGE post, t2_flair/"):
        find_patient_folders(tmp_path / "in", ["adc"])


def test_a_channel_on_another_grid_is_resampled_with_a_message(run: Run, tmp_path: Path) -> None:
    fine, coarse = np.diag([1.0, 1.0, 1.0, 1]), np.diag([2.0, 2.0, 2.0, 1])
    x, y, z = np.indices((8, 10, 12))
    save_nifti(tmp_path / "in" / "p1" / "t1.nii.gz", (x + 10 * y).astype(np.float32), fine)
    x, y, z = 2 * np.indices((4, 5, 6))
    save_nifti(tmp_path / "in" / "p1" / "t2.nii.gz", (x + 3 * y + z).astype(np.float32), coarse)
    code, _, err = run("new", tmp_path / "p", "--images", tmp_path / "in", "--channels", "t1,t2")
    assert code == 0
    assert "Channel 2 of p1 was resampled to the grid of the first" in err.replace("\n", " ")
    volume = Project.open(tmp_path / "p").read_image("p1")
    z, y, x = np.indices(volume.shape)
    place = np.einsum("ij,jzyx->izyx", volume.affine, np.stack([z, y, x, np.ones_like(x)]))
    inside = (place[0] <= 6) & (place[1] <= 8) & (place[2] <= 10)
    expected = place[0] + 3 * place[1] + place[2]  # a ramp in space stays that ramp
    assert np.allclose(volume.array[1][inside], expected[inside], atol=1e-4)
    assert np.all(volume.array[1][~inside] >= 0)
    far = np.diag([2.0, 2.0, 2.0, 1])
    far[:3, 3] = 500
    save_scan(tmp_path / "in" / "p1" / "t2.nii.gz", 0, far)
    with pytest.raises(GeometryError, match="Channel 2 of p1 does not overlap"):
        create_project(tmp_path / "q", tmp_path / "in", channels=["t1", "t2"])
    assert not (tmp_path / "q").exists()


def test_resampled_channels_keep_their_border(tmp_path: Path) -> None:
    for seed in range(5):
        random = np.random.default_rng(seed)
        turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = turn, random.uniform(-200, 200, 3)
        fine = np.full((9, 9, 9), 100, np.float32)
        fine[4, 4, 4] = 0
        save_nifti(tmp_path / "fine.nii.gz", fine, affine)
        affine[:3, :3] *= 2
        coarse = random.normal(size=(5, 5, 5)).astype(np.float32)
        save_nifti(tmp_path / "coarse.nii.gz", coarse, affine)
        both = read_scan([tmp_path / "coarse.nii.gz", tmp_path / "fine.nii.gz"], "case").array
        assert np.count_nonzero(both[1] < 99) == 1
