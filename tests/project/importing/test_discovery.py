"""Scans found in folders of all kinds, as files, channels, patients and DICOM series."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from helpers.dicom_files import CORONAL, OBLIQUE, save_series, values
from helpers.nifti_files import save_nifti
from helpers.tiny_runs import TINY

from napari_dycon.engine.checkpoints.model_file import load_model
from napari_dycon.engine.config import make_config
from napari_dycon.engine.inference.predict_scans import predict_cases
from napari_dycon.engine.training.run import train
from napari_dycon.errors import FileFormatError, GeometryError, IrregularSlicesError, UserError
from napari_dycon.io import read_volume, write_mask
from napari_dycon.io.dicom.discovery import find_series
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.importing.discovery import (
    find_labels,
    find_scans,
    read_scan,
    scans_from_paths,
)
from napari_dycon.project.importing.patient_folders import find_patient_folders
from napari_dycon.project.store import Project

Run = Callable[..., tuple[int, str, str]]
SHAPE = (6, 7, 8)


def scan(path: Path, seed: int = 0, affine: np.ndarray | None = None) -> Path:
    noise = np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)
    return save_nifti(path, noise, affine)


def names(folder: Path) -> list[str]:
    return [found.name for found in find_scans(folder, "images")]


# ---- Files --------------------------------------------------------------------------------------


def test_numbered_files_are_channels(tmp_path: Path) -> None:
    for case in ("a", "b_1"):
        for number in (0, 1):
            scan(tmp_path / f"{case}_{number:04d}.nii.gz")
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
    scan(tmp_path / "a_0001.nii.gz")
    scan(tmp_path / "atlas.nii.gz")
    with pytest.raises(UserError, match=r"atlas.nii.gz is not named like .* a_0000.nii.gz\."):
        find_scans(tmp_path, "images")


def test_numbers_may_count_scans(tmp_path: Path) -> None:
    for number in range(9):
        scan(tmp_path / "many" / f"scan_{number:04d}.nii.gz")
    assert len(names(tmp_path / "many")) == 9
    for number in range(3):
        scan(tmp_path / "few" / f"scan_{number:04d}.nii.gz")
    assert names(tmp_path / "few") == ["scan"]  # nothing tells otherwise
    label = np.zeros(SHAPE, np.uint8)
    label[2, 2] = 1
    save_nifti(tmp_path / "labels" / "scan_0001.nii.gz", label)
    project = create_project(tmp_path / "p", tmp_path / "few", tmp_path / "labels")
    assert [(c.id, c.status) for c in project.cases] == [
        ("scan_0000", "unlabeled"),
        ("scan_0001", "labeled"),
        ("scan_0002", "unlabeled"),
    ]


def test_odd_and_unicode_names(tmp_path: Path) -> None:
    odd = ["Müller #2", "..x", "con", "患者 1", "a" * 200, "100%", "x(1)", "-dash", " space "]
    for number, name in enumerate(odd):
        scan(tmp_path / "images" / f"{name}.nii", number)
    label = np.zeros(SHAPE, np.uint8)
    label[2, 2] = 1
    for name in ("患者 1", "Müller #2", "x(1)"):
        save_nifti(tmp_path / "labels" / f"{name}.nii.gz", label)
    project = create_project(tmp_path / "p", tmp_path / "images", tmp_path / "labels")
    assert len(project.cases) == len(odd) - 1  # "..x" is hidden
    assert len({case.id for case in project.cases}) == len(odd) - 1
    assert len(project.labeled_cases()) == 3
    for case in project.cases:
        assert project.labels.path(case.id).parent == project.path / "labels"
        project.labels.save(case.id, np.ones(project.read_image(case.id).shape, np.uint8))
    assert len(Project.open(project.path).labeled_cases()) == len(odd) - 1


def test_what_is_wrong_with_a_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty" / "also").mkdir(parents=True)
    with pytest.raises(UserError, match=r"contains no scans; expected NIfTI files"):
        find_scans(tmp_path / "empty", "images")
    with pytest.raises(UserError, match=r"Folder .*none \(for the labels\) does not exist"):
        find_scans(tmp_path / "none", "labels")
    file = scan(tmp_path / "file" / "a.nii.gz")
    with pytest.raises(UserError, match="is a file; expected the folder of the images"):
        find_scans(file, "images")
    scan(tmp_path / "file" / "a.nii")
    with pytest.raises(UserError, match=r"contains a.nii and a.nii.gz, which are both named a;"):
        find_scans(tmp_path / "file", "images")
    scan(tmp_path / "below" / "p1" / "t1.nii.gz")
    with pytest.raises(UserError, match=r"subfolders do, such as p1/t1.nii.gz\. .*--channels"):
        find_scans(tmp_path / "below", "images")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="this user may read anything")
def test_what_may_not_be_read_is_named(tmp_path: Path) -> None:
    save_series(tmp_path / "a" / "p1", values())
    save_series(tmp_path / "a" / "p2", values())
    (tmp_path / "a" / "p2").chmod(0)
    try:
        with pytest.raises(UserError, match=r"folder .*p2 cannot be read \(Permission denied\)"):
            find_scans(tmp_path / "a", "images")
        with pytest.raises(UserError, match=r"folder .*p2 .*cannot be read \(Permission denied\)"):
            find_scans(tmp_path / "a" / "p2", "images")
        with pytest.raises(UserError, match=r"p2 cannot be read \(Permission denied\)"):
            find_patient_folders(tmp_path / "a", ["t1"])
    finally:
        (tmp_path / "a" / "p2").chmod(0o755)
    last = tmp_path / "a" / "p2" / "IM0005.dcm"
    last.chmod(0)  # without it the scan would be read a slice too short
    with pytest.raises(UserError, match=r"IM0005.dcm in .*p2 cannot be read \(Permission denied\)"):
        find_scans(tmp_path / "a", "images")


# ---- 4D files -----------------------------------------------------------------------------------


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
    with pytest.raises(FileFormatError, match=r"has 3 channel\(s\); expected at least 4"):
        read_volume(f"{path}#3")
    with pytest.raises(FileFormatError, match=r"alone.nii.gz has 1 channel\(s\)"):
        read_volume(tmp_path / "alone.nii.gz#1")
    save_nifti(path, np.zeros((*SHAPE, 30), np.int16))
    with pytest.raises(FileFormatError, match="is 4D"):  # time points
        create_project(tmp_path / "p", path.parent)
    scan(tmp_path / "3d" / "a.nii.gz")
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


def test_a_project_of_4d_files(run: Run, tmp_path: Path) -> None:
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
    trained_and_predicted(project, "s2")
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
    assert "would replace the scan" in err


def trained_and_predicted(project: Project, case: str) -> None:
    """Train for two steps, predict a case, and find mask and map on the scan's grid."""
    settings = TINY | {"steps": 2}
    events = list(train(project, make_config("dycon", **settings)))
    assert events[-1]["event"] == "finished"
    run = project.runs.get()
    model = load_model(run.weights_path, torch.device("cpu"))
    cpu = torch.device("cpu")
    (event,) = predict_cases(project, run.id, model, [case], cpu, torch.float32)
    assert event["case"] == case
    mask = project.predictions.read(run.id, case)
    assert mask.shape == project.read_image(case).shape


# ---- A folder a patient -------------------------------------------------------------------------


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    folder = tmp_path / "patients"
    for number, patient in enumerate(("p1", "p2 Ä")):
        for channel in ("t1", "t1ce", "flair", "T1_Gd"):
            scan(folder / patient / f"{patient}_{channel}.nii.gz", number)
    (folder / ".hidden").mkdir()
    (folder / "empty").mkdir()
    (folder / "readme.txt").write_text("nothing")
    return folder


def test_channels_by_name(run: Run, patients: Path, tmp_path: Path) -> None:
    code, out, _ = run(
        "new", tmp_path / "p", "--images", patients, "--channels", "T1, flair", "--json"
    )
    assert code == 0
    made = json.loads(out)
    assert Project.open(tmp_path / "p").channels == ["T1", "flair"]
    files = [[Path(image).name for image in case["images"]] for case in made["cases"]]
    assert files == [
        ["p1_t1.nii.gz", "p1_flair.nii.gz"],
        ["p2 Ä_t1.nii.gz", "p2 Ä_flair.nii.gz"],
    ]
    assert find_patient_folders(patients, ["t1 gd"])[0].images[0].name == "p1_T1_Gd.nii.gz"


def test_channels_that_do_not_fit(run: Run, patients: Path, tmp_path: Path) -> None:
    def refused(words: str, channels: str, images: Path = patients) -> None:
        code, out, err = run("new", tmp_path / "p", "--images", images, "--channels", channels)
        assert (code, out) == (2, ""), err
        assert words in err.replace("\n", " "), err
        assert not (tmp_path / "p").exists()

    refused("Folder p1 has no scans for the channel 'dwi'", "t1,dwi")
    refused("Found: p1_T1_Gd, p1_flair, p1_t1, p1_t1ce.", "t1,dwi")
    refused("one scan for several of the channels t1, T1", "t1,T1")
    refused("has no name", "t1,")
    refused("Folder p1 has no scans for the channel '+'", "+")
    (patients / "p1" / "p1_t1.nii.gz").unlink()
    (patients / "p1" / "p1_T1_Gd.nii.gz").unlink()
    code, out, err = run(
        "new", tmp_path / "q", "--images", patients, "--channels", "t1,flair", "--json"
    )
    assert code == 0
    assert [case["id"] for case in json.loads(out)["cases"]] == ["p2 Ä"]
    assert "p1 was left out: Folder p1 has no scans for the channel 't1'" in err  # t1ce is another
    shutil.rmtree(patients / "p2 Ä")
    refused("Folder p1 has no scans for the channel 't1'", "t1,flair")
    (tmp_path / "flat").mkdir()
    refused("no subfolders with scans", "t1", tmp_path / "flat")
    scan(tmp_path / "flat" / "p1_t1.nii.gz")
    refused("Expected one folder per patient", "t1,flair", tmp_path / "flat")


def test_channels_of_dicom_patients(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        for number, description in enumerate(("T1 MPRAGE", "T1 MPRAGE post", "t2_flair/dark")):
            folder = tmp_path / "in" / patient / "study" / str(number)
            save_series(folder, values() + number, description=description)
        save_series(tmp_path / "in" / patient / "shot", values()[:1], description="flair")
    found = find_patient_folders(tmp_path / "in", ["t1", "flair"])[:1]
    assert [p.parent.name for p in found[0].images] == ["0", "2"]
    project = create_project(tmp_path / "p", tmp_path / "in", channels=["flair", "t1 post"])
    assert project.channels == ["flair", "t1 post"]
    assert project.read_image("p2").array.min(axis=(1, 2, 3)).tolist() == [2, 1]
    with pytest.raises(UserError, match=r"no scans .* 'adc'.*T1 MPRAGE, T1 MPRAGE post, t2_flair/"):
        find_patient_folders(tmp_path / "in", ["adc"])


def test_a_channel_on_another_grid_is_resampled_aloud(run: Run, tmp_path: Path) -> None:
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
    scan(tmp_path / "in" / "p1" / "t2.nii.gz", 0, far)
    with pytest.raises(GeometryError, match="Channel 2 of p1 does not overlap"):
        create_project(tmp_path / "q", tmp_path / "in", channels=["t1", "t2"])
    assert not (tmp_path / "q").exists()


# ---- DICOM --------------------------------------------------------------------------------------


def test_dicom_patients_by_their_first_folder(tmp_path: Path) -> None:
    save_series(tmp_path / "p1" / "study" / "1", values())
    save_series(tmp_path / "p2", values())
    for number, description in enumerate(("T2", "ADC/b=0 ../x", "T2")):
        save_series(tmp_path / "p3" / str(number), values(), description=description)
    save_series(tmp_path / "p3" / "localizer", values()[:1])
    (tmp_path / "p1" / "report.dcm").write_text("no image")
    (tmp_path / "p1" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "p1" / "study" / "1" / "Thumbs.db").write_bytes(os.urandom(500))
    shutil.copytree(tmp_path / "p2", tmp_path / ".trash" / "p2")
    found = names(tmp_path)
    assert found == ["p1", "p2", "p3 1", "p3 2", "p3 3"]  # people write anything into descriptions
    project = create_project(tmp_path.parent / f"{tmp_path.name}-p", tmp_path)
    assert [case.id for case in project.cases] == found


def test_a_folder_that_is_a_series_is_a_scan_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_series(tmp_path / "p7", values())
    assert names(tmp_path / "p7") == ["p7"]
    monkeypatch.chdir(tmp_path / "p7")
    assert names(Path()) == ["p7"]


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    save_series(tmp_path / "elsewhere" / "scan", values())
    save_series(tmp_path / "in" / "p2", values())
    (tmp_path / "in" / "p1").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "in", target_is_directory=True)
    (tmp_path / "in" / "p2" / "self").symlink_to(tmp_path / "in" / "p2", target_is_directory=True)
    (tmp_path / "in" / "0").symlink_to(tmp_path / "in" / "p2", target_is_directory=True)
    (tmp_path / "in" / "broken").symlink_to(tmp_path / "gone")
    assert names(tmp_path / "in") == ["p1", "p2"]
    assert read_volume(find_scans(tmp_path / "in", "images")[0].images[0]).shape == (5, 6, 7)


def test_a_copy_of_a_series_is_no_other_patient(tmp_path: Path) -> None:
    save_series(tmp_path / "p1" / "a", values())
    shutil.copytree(tmp_path / "p1" / "a", tmp_path / "p1" / "b")
    with pytest.raises(
        UserError, match=r"contains the same series twice, in p1/a and p1/b; expected"
    ):
        find_scans(tmp_path, "images")
    (tmp_path / "p1" / "b").rename(tmp_path / "p2")
    with pytest.raises(UserError, match=r"twice, in p1/a and p2; expected each"):
        find_scans(tmp_path, "images")

    def unnamed(data: Any, number: int) -> None:
        data.SOPInstanceUID = "1.2.3"  # as some programs anonymise

    save_series(tmp_path / "q" / "1", values(), change=unnamed)
    save_series(tmp_path / "q" / "2", values(), change=unnamed)
    assert names(tmp_path / "q") == ["1", "2"]


def test_same_file_names_in_two_patients(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        save_series(tmp_path / "in" / patient / "x", values() + 10 * (patient == "p2"))
    project = create_project(tmp_path / "p", tmp_path / "in")
    assert [project.read_image(case).array.min() for case in ("p1", "p2")] == [0, 10]


def test_a_label_for_a_dicom_scan(tmp_path: Path) -> None:
    for number, patient in enumerate(("p1", "p2", "p3")):
        label = np.zeros((18, 20, 22), np.int16)
        label[4:12, 4 + number : 12, 6:14] = 1
        noise = np.random.default_rng(number).normal(100, 10, label.shape)
        voxels = (noise + 80 * label).astype(np.int16)
        directions = OBLIQUE if number else CORONAL
        save_series(tmp_path / "in" / patient / "st" / "se", voxels, directions=directions)
        if number < 2:  # drawn elsewhere, and written by SimpleITK on the scan's grid
            drawn = sitk.GetImageFromArray(label.astype(np.uint8))
            drawn.CopyInformation(series_by_itk(tmp_path / "in" / patient / "st" / "se"))
            (tmp_path / "labels").mkdir(exist_ok=True)
            sitk.WriteImage(drawn, tmp_path / "labels" / f"{patient}.nii.gz")
    project = create_project(tmp_path / "p", tmp_path / "in", tmp_path / "labels")
    assert [c.status for c in project.cases] == ["labeled", "labeled", "unlabeled"]
    for case in ("p1", "p2"):
        inside = project.labels.read(case) == 1
        image = project.read_image(case).array
        assert image[inside].mean() > image[~inside].mean() + 70

    # What is drawn here lies on the scan's grid as SimpleITK sees both.
    mask = np.zeros(project.read_image("p3").shape, np.uint8)
    mask[2:5, 3:9, 1:7] = 1
    image = project.read_image("p3").array
    project.labels.save("p3", mask)
    theirs = series_by_itk(tmp_path / "in" / "p3" / "st" / "se")
    ours = sitk.ReadImage(str(project.labels.path("p3")))
    for corner in np.ndindex(2, 2, 2):
        index = [int(c * (n - 1)) for c, n in zip(corner, ours.GetSize(), strict=True)]
        place = ours.TransformIndexToPhysicalPoint(index)
        assert all(float(v).is_integer() for v in theirs.TransformPhysicalPointToIndex(place))
        back = theirs.TransformPhysicalPointToContinuousIndex(place)
        assert np.allclose(back, np.rint(back), atol=1e-3)
    on_scan = sitk.Resample(ours, theirs, sitk.Transform(), sitk.sitkNearestNeighbor)
    inside = sitk.GetArrayFromImage(on_scan) == 1
    assert sorted(sitk.GetArrayFromImage(theirs)[inside]) == sorted(image[mask == 1])
    reopened = Project.open(project.path)
    assert np.array_equal(reopened.labels.read("p3"), mask)
    project.labels.save("p3", np.full(mask.shape, 255, np.uint8))
    trained_and_predicted(project, "p3")

    shifted = nib.load(tmp_path / "labels" / "p1.nii.gz")
    affine = shifted.affine.copy()
    affine[:3, 3] += 5
    save_nifti(tmp_path / "labels" / "p1.nii.gz", np.asarray(shifted.dataobj), affine)
    with pytest.raises(
        GeometryError, match=r"Label p1.nii.gz does not fit .*their positions differ"
    ):
        create_project(tmp_path / "q", tmp_path / "in", tmp_path / "labels")


def series_by_itk(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def test_a_tilted_series_is_a_case_on_request(
    run: Run, real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = real_data("dicom/ct-gantry-tilt")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "p1").symlink_to(folder, target_is_directory=True)
    code, _, err = run("new", tmp_path / "p", "--images", tmp_path / "in")
    assert code == 2
    assert "tilted gantry" in err.replace("\n", " ")
    assert "--resample" in err
    code, _, err = run("new", tmp_path / "p", "--images", tmp_path / "in", "--resample")
    assert code == 0
    assert "It was resampled" in err.replace("\n", " ")
    project = Project.open(tmp_path / "p")
    assert project.get_case("p1").resampled
    volume = project.read_image("p1")
    mask = np.zeros(volume.shape, np.uint8)
    mask[3:9, 100:200, 50:70] = 1
    project.labels.save("p1", mask)
    again = Project.open(tmp_path / "p")
    assert np.array_equal(again.labels.read("p1"), mask)
    assert again.get_case("p1").status == "labeled"
    label = read_volume(again.labels.path("p1"))
    assert np.allclose(label.affine, volume.affine, atol=1e-4)


def test_many_series_in_one_folder(tmp_path: Path) -> None:
    """As some archives hand them out; the search goes through the folder once."""
    for number in range(6):
        for path in save_series(tmp_path / "new", values((30, 4, 4)) + number):
            path.rename(tmp_path / f"{number}-{path.name}")
    (tmp_path / "new").rmdir()
    seen: list[tuple[int, int]] = []
    found = find_series(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert [len(s.slices) for s in found] == [30] * 6
    assert seen[-1] == (179, 180)
    project = create_project(tmp_path.parent / f"{tmp_path.name}-p", tmp_path)
    assert sorted(project.read_image(c.id).array.min() for c in project.cases) == list(range(6))


def test_files_that_are_added_or_changed_are_seen(tmp_path: Path) -> None:
    paths = save_series(tmp_path, values())
    paths[-1].rename(tmp_path / "hidden.txt~")
    (tmp_path / "hidden.txt~").write_bytes((bytes_ := (tmp_path / "hidden.txt~").read_bytes())[:99])
    assert read_volume(paths[0]).shape == (4, 6, 7)
    paths[-1].write_bytes(bytes_)
    assert read_volume(paths[0]).shape == (5, 6, 7)
    data = pydicom.dcmread(paths[1])
    data.ImagePositionPatient[2] += 0.8
    data.save_as(paths[1])
    with pytest.raises(IrregularSlicesError):
        read_volume(paths[0])


def test_descriptions_in_other_letters(tmp_path: Path) -> None:
    save_series(tmp_path / "p1" / "1", values(), description="Schädel t1")

    def japanese(data: Any, number: int) -> None:
        data.SpecificCharacterSet = "ISO_IR 192"
        data.SeriesDescription = "脳 flair"
        for element in list(data):
            if element.VR == "PN":
                del data[element.tag]

    save_series(tmp_path / "p1" / "2", values(), change=japanese)
    assert names(tmp_path) == ["p1 1", "p1 2"]
    assert [p.parent.name for p in find_patient_folders(tmp_path, ["脳", "schädel"])[0].images] == [
        "2",
        "1",
    ]


def test_labels_of_a_folder(tmp_path: Path) -> None:
    for name in ("b", "a", "c_0000"):
        scan(tmp_path / f"{name}.nii.gz")
    assert list(find_labels(tmp_path)) == ["a", "b", "c_0000"]


def test_images_and_labels_may_both_end_in_a_number(tmp_path: Path) -> None:
    for number, name in enumerate(("a_0000", "b_0000")):
        image = scan(tmp_path / "images" / f"{name}.nii.gz", number)
        like = read_volume(image)
        (tmp_path / "labels").mkdir(exist_ok=True)
        path = tmp_path / "labels" / f"{name}.nii.gz"
        write_mask(np.ones(like.shape, np.uint8), reference=like, path=path)
    project = create_project(tmp_path / "p", tmp_path / "images", tmp_path / "labels")
    assert [(c.id, c.status) for c in project.cases] == [
        ("a_0000", "labeled"), ("b_0000", "labeled"),
    ]  # fmt: skip


def test_chosen_files_of_a_series_are_one_scan(tmp_path: Path) -> None:
    files = save_series(tmp_path / "patient", values())
    other = scan(tmp_path / "other.nii.gz")
    found = scans_from_paths([*files, other])
    assert [(one.name, one.images) for one in found] == [
        ("patient", (files[0],)), ("other", (other,)),
    ]  # fmt: skip
    for gone in ("gone.dcm", "gone.nii.gz"):
        with pytest.raises(FileFormatError, match="does not exist"):
            read_scan(scans_from_paths([tmp_path / gone])[0].images, "gone")


def test_channels_keep_their_edges(tmp_path: Path) -> None:
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
