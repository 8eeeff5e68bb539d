"""Folders as the field's benchmarks are handed out."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from dicom_files import save_series, values
from nifti_files import save_nifti
from tiny_runs import TINY

from napari_dycon.engine.config import make_config
from napari_dycon.engine.train import train
from napari_dycon.errors import UserError
from napari_dycon.project.importers import project_from_folder
from napari_dycon.project.layouts import recognise
from napari_dycon.project.store import Project

Run = Callable[..., tuple[int, str, str]]
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


def test_brats(run: Run, tmp_path: Path) -> None:
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
    code, out, err = run("new", tmp_path / "q", "--images", folder, "--labelled", "1", "--json")
    assert code == 0
    assert "BraTS19_B_1 was left out: Case BraTS19_B_1 has no t1ce image" in err.replace("\n", " ")
    assert [c["id"] for c in json.loads(out)["cases"]] == ["BraTS19_A_1", "BraTS19_C_1"]
    others = project_from_folder(tmp_path / "r", folder, channels=["t1", "flair"])
    assert len(others.cases) == 3  # t1ce is not wanted, and may be lacking


@pytest.mark.parametrize("place", ["ses-0001/dwi", "ses-0001", "rawdata"])
def test_isles(tmp_path: Path, place: str) -> None:
    root = tmp_path / "ISLES-2022"
    for number in (1, 2):
        name = f"sub-strokecase000{number}"
        dwi = root / name / place
        if "rawdata" in place:
            dwi = root / "rawdata" / name / "ses-0001"
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


def test_the_folder_that_a_dataset_was_unpacked_to(tmp_path: Path) -> None:
    brats(tmp_path / "unpacked" / "MICCAI_BraTS_2019_Data_Training")
    project = project_from_folder(tmp_path / "p", tmp_path / "unpacked", labelled=2)
    assert [case.id for case in project.cases] == ["BraTS19_A_1", "BraTS19_B_1", "BraTS19_C_1"]
    brats(tmp_path / "unpacked" / "MICCAI_BraTS_2019_Data_Validation")
    with pytest.raises(UserError, match=r"2 datasets: MICCAI_BraTS_2019_Data_Training, .*Choose"):
        project_from_folder(tmp_path / "q", tmp_path / "unpacked")


def test_a_dataset_is_predicted_as_it_is_handed_out(run: Run, tmp_path: Path) -> None:
    folder = brats(tmp_path / "BraTS")
    project = project_from_folder(tmp_path / "p", folder, channels=["t1", "flair"], labelled=2)
    list(train(project, make_config("supervised", **TINY)))
    code, out, _ = run("predict", project.path, "--images", folder, "--json")
    assert code == 0
    assert [json.loads(line)["case"] for line in out.splitlines()] == [c.id for c in project.cases]
    own = project.path / "predictions"
    assert run("predict", project.path)[0] == 0
    for case in project.cases:
        (there,) = own.glob(f"*-BraTS/{case.id}.nii.gz")
        here = own / project.run().id / f"{case.id}.nii.gz"
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
        brats(tmp_path / "both" / name)
    code, _, err = run("predict", project.path, "--images", tmp_path / "both")
    assert code == 2
    assert "holds 2 datasets: A, B. Choose one" in err


def test_a_dataset_beside_other_scans_is_not_taken_for_all_of_them(tmp_path: Path) -> None:
    for patient in ("anna", "ben"):  # whose folders are named as BraTS names its cases
        for channel in ("flair", "t1", "t1ce", "t2"):
            scan(tmp_path / "few" / patient / "scan1" / f"scan1_{channel}.nii.gz", 0)
    assert recognise(tmp_path / "few") is None
    study = tmp_path / "study"
    for channel in ("CT", "PET"):
        scan(study / "p1" / f"{channel}.nii.gz", 0)
    nnunet(study / "export")
    assert recognise(study) is None
    project = project_from_folder(tmp_path / "p", tmp_path / "few", channels=["t1", "flair"])
    assert [case.id for case in project.cases] == ["anna", "ben"]


def test_a_link_to_a_dataset_is_no_second_one(tmp_path: Path) -> None:
    nnunet(tmp_path / "raw" / "Dataset001_A")
    (tmp_path / "raw" / "latest").symlink_to(tmp_path / "raw" / "Dataset001_A")
    found = recognise(tmp_path / "raw")
    assert found is not None
    assert len(found.cases) == 4
    nnunet(tmp_path / "raw" / "Dataset002_B", labels={"background": 0, "whole": [1, 2]})
    with pytest.raises(UserError, match="2 datasets: Dataset001_A, Dataset002_B"):
        recognise(tmp_path / "raw")


def test_a_folder_that_may_not_be_read(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = nnunet(tmp_path / "d")
    is_file = Path.is_file

    def refused(path: Path) -> bool:  # as for a folder of which names alone may be read
        if path.parent == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refused)
    code, _, err = run("new", tmp_path / "p", "--images", folder)
    assert code == 2
    assert "cannot be read (Permission denied)" in err.replace("\n", " ")


def test_plain_folders_are_no_benchmark(scans: Path) -> None:
    assert recognise(scans) is None
    assert recognise(scans / "images") is None
    project = project_from_folder(
        scans.parent / "q", scans / "images", scans / "labels", ["box"], labelled=1
    )
    assert [c.id for c in project.cases if c.status == "labelled"] == ["scan-0"]


# ---- nnU-Net raw and the Decathlon --------------------------------------------------------------


def label_of(*values: int) -> np.ndarray:
    label = np.zeros(SHAPE, np.uint8)
    label[2, 2, : len(values)] = values
    return label


def describe(root: Path, **about: Any) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(about), encoding="utf-8")


def nnunet(root: Path, channels: int = 2, **about: Any) -> Path:
    """nnU-Net's second version: three cases for training, one for testing."""
    describe(
        root,
        **{
            "channel_names": {str(n): ("CT", "PET", "T2")[n] for n in range(channels)},
            "labels": {"background": 0, "tumour": 1, "node": 2},
            "numTraining": 3,
            "file_ending": ".nii.gz",
        }
        | about,
    )
    for folder, cases in (("imagesTr", ("a_001", "a_002", "b")), ("imagesTs", ("t_009",))):
        for number, case in enumerate(cases):
            for channel in range(channels):
                scan(root / folder / f"{case}_{channel:04d}.nii.gz", number)
            if folder == "imagesTr":
                save_nifti(root / "labelsTr" / f"{case}.nii.gz", label_of(1, 2))
    return root


def test_nnunet_raw(run: Run, tmp_path: Path) -> None:
    root = nnunet(tmp_path / "nnUNet_raw" / "Dataset042_Tumours")
    code, out, _ = run("new", tmp_path / "p", "--images", root, "--labelled", 2, "--json")
    assert code == 0
    made = json.loads(out)
    assert [(c["id"], c["status"], len(c["images"])) for c in made["cases"]] == [
        ("a_001", "labelled", 2),
        ("a_002", "labelled", 2),
        ("b", "unlabelled", 2),
        ("t_009", "unlabelled", 2),
    ]
    project = Project.open(tmp_path / "p")
    assert project.channels == ["CT", "PET"]
    assert [(c.value, c.name) for c in project.classes] == [(1, "tumour"), (2, "node")]
    one = project_from_folder(tmp_path / "q", root, channels=["pet"], classes=["x", "y"])
    assert one.channels == ["PET"]
    assert one.image_paths("b")[0].name == "b_0001.nii.gz"
    assert [c.name for c in one.classes] == ["x", "y"]
    with pytest.raises(UserError, match=r"has no channel 'MR'; expected some of: CT, PET\."):
        project_from_folder(tmp_path / "r", root, channels=["MR"])
    with pytest.raises(UserError, match=r"1 class\(es\) are named, but .* has 2: tumour, node"):
        project_from_folder(tmp_path / "r", root, classes=["x"])


def test_nnunets_first_version_and_hidden_files(tmp_path: Path) -> None:
    root = nnunet(
        tmp_path / "Task500_Things", 1, channel_names={}, modality={"0": "CT"},
        labels={"0": "background", "1": "tumour", "2": "node"},
        training=[{"image": "./imagesTr/b.nii.gz", "label": "./labelsTr/b.nii.gz"}], test=[],
    )  # fmt: skip
    values = json.loads((root / "dataset.json").read_text())
    del values["channel_names"]
    describe(root, **values)
    for place in ("imagesTr/._b_0000.nii.gz", "labelsTr/._b.nii.gz", "imagesTs/._t.nii.gz"):
        (root / place).write_bytes(b"of a Mac")
    project = project_from_folder(tmp_path / "p", root)
    assert project.channels == ["CT"]
    assert [c.id for c in project.labelled()] == ["a_001", "a_002", "b"]


def test_what_nnunet_ignores_is_not_annotated(tmp_path: Path) -> None:
    root = nnunet(tmp_path / "d", labels={"background": 0, "tumour": 1, "node": 2, "ignore": 3})
    save_nifti(root / "labelsTr" / "b.nii.gz", label_of(1, 2, 3, 3))
    project = project_from_folder(tmp_path / "p", root)
    assert [c.value for c in project.classes] == [1, 2]
    assert {int(v): int(n) for v, n in zip(*np.unique(project.read_label("b"), return_counts=True),
                                           strict=True)}[255] == 2  # fmt: skip
    assert project.case("b").status == "in progress"
    save_nifti(root / "labelsTr" / "b.nii.gz", label_of(4))
    with pytest.raises(UserError, match=r"Label b.nii.gz holds the unknown class 4"):
        project_from_folder(tmp_path / "q", root)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        (
            {"labels": {"background": 0, "whole": [1, 2], "core": [2]}},
            r"trains on regions \(whole\)",
        ),
        ({"labels": {"background": 0}}, '"labels" names no structure'),
        ({"labels": [0, 1]}, '"labels" is no list of names and values'),
        ({"labels": {"background": 0, "x": 300}}, r"gives 'x' the value 300; expected 0 to 254"),
        ({"labels": {"background": 0, "x": None}}, "gives 'x' the value None"),
        ({"labels": {"background": 0, "x": 1, "X": 2}}, "class name must be unique"),
        ({"labels": {"0": "background", "1": " "}}, "gives ' ' the value '1'"),
        ({"channel_names": "CT"}, '"channel_names" is no list of names and values'),
        ({"channel_names": {"CT": 0, "PET": 1}}, "does not number the channels"),
        ({"channel_names": {"0": "CT"}}, r"a_001 has 2 channel\(s\); expected 1, .*: CT\."),
        ({"channel_names": {"0": "CT", "1": "P", "2": "Q"}}, r"a_001 has 2 .* expected 3"),
    ],
)
def test_a_description_that_does_not_fit(
    run: Run, about: dict[str, Any], words: str, tmp_path: Path
) -> None:
    root = nnunet(tmp_path / "d", **about)
    code, out, err = run("new", tmp_path / "p", "--images", root)
    assert (code, out) == (2, "")
    assert re.search(words, err.replace("\n", " ")), err
    assert "Traceback" not in err
    assert not (tmp_path / "p").exists()


def test_a_broken_or_incomplete_dataset(run: Run, tmp_path: Path) -> None:
    def refused(words: str) -> None:
        code, out, err = run("new", tmp_path / "p", "--images", root)
        assert (code, out) == (2, "")
        assert words in err.replace("\n", " "), err
        assert not (tmp_path / "p").exists()

    root = nnunet(tmp_path / "d")
    whole = (root / "dataset.json").read_text()
    for broken in (b'{"labels": ', b"\xff\xfe\x00", b"[]", b""):
        (root / "dataset.json").write_bytes(broken)
        refused("dataset.json cannot be read as the description of a dataset")
    (root / "dataset.json").write_text(whole)
    (root / "imagesTr" / "a_002_0001.nii.gz").unlink()
    refused("Case a_002 has no channel 0001; expected the files a_002_0000, a_002_0001.")
    for file in (root / "imagesTr").glob("a_002*"):
        file.unlink()
    refused("Label a_002 in labelsTr")
    for file in (root / "imagesTr").iterdir():
        file.unlink()
    refused("holds no scans")


def decathlon(root: Path, channels: int = 1) -> Path:
    """As unpacked from Task02_Heart.tar or Task05_Prostate.tar, with what a Mac left in it."""
    describe(
        root,
        name="LeftAtrium" if channels == 1 else "PROSTATE",
        description="Left atrium segmentation",
        tensorImageSize="3D" if channels == 1 else "4D",
        modality={str(n): ("MRI", "ADC")[n] for n in range(channels)},
        labels={"0": "background", "1": "left atrium"},
        numTraining=3,
        numTest=1,
        training=[{"image": "./imagesTr/la_003.nii.gz", "label": "./labelsTr/la_003.nii.gz"}],
        test=["./imagesTs/la_001.nii.gz"],
    )
    shape = SHAPE if channels == 1 else (*SHAPE, channels)
    for number, place in enumerate(("Tr/la_003", "Tr/la_004", "Tr/la_0005", "Ts/la_001")):
        noise = np.random.default_rng(number).normal(size=shape).astype(np.float32)
        save_nifti(root / f"images{place}.nii.gz", noise)
        hidden = root / f"images{place}.nii.gz"
        hidden.with_name(f"._{hidden.name}").write_bytes(b"\0\5\x16\7of a Mac")
        if place.startswith("Tr"):
            save_nifti(root / f"labels{place}.nii.gz", label_of(1))
            (root / "labelsTr" / f"._{hidden.name}").write_bytes(b"\0\5\x16\7of a Mac")
    (root / "._dataset.json").write_bytes(b"\0\5\x16\7of a Mac")
    return root


def test_decathlon(run: Run, tmp_path: Path) -> None:
    root = decathlon(tmp_path / "Task02_Heart")
    code, out, _ = run("new", tmp_path / "p", "--images", root, "--json")
    assert code == 0
    assert [(c["id"], c["status"]) for c in json.loads(out)["cases"]] == [
        ("la_0005", "labelled"),
        ("la_003", "labelled"),
        ("la_004", "labelled"),
        ("la_001", "unlabelled"),
    ]
    project = Project.open(tmp_path / "p")
    assert project.channels == ["MRI"]
    assert [(c.value, c.name) for c in project.classes] == [(1, "left atrium")]


def test_decathlon_with_channels_in_one_file(tmp_path: Path) -> None:
    root = decathlon(tmp_path / "Task05_Prostate", 2)
    project = project_from_folder(tmp_path / "p", root)
    assert project.channels == ["MRI", "ADC"]
    assert project.case("la_001").images == [
        "../Task05_Prostate/imagesTs/la_001.nii.gz#0",
        "../Task05_Prostate/imagesTs/la_001.nii.gz#1",
    ]
    both = project.read_image("la_003").array
    assert both.shape[0] == 2
    adc = project_from_folder(tmp_path / "q", root, channels=["ADC"])
    assert np.array_equal(adc.read_image("la_003").array, both[1])
    assert np.array_equal(adc.read_label("la_003"), project.read_label("la_003"))
    describe(root, modality={"0": "MRI"}, labels={"0": "background", "1": "x"})
    with pytest.raises(UserError, match=r"Case la_0005 has 2 channel\(s\); expected 1, "):
        project_from_folder(tmp_path / "r", root)


def test_a_real_dataset_of_four_channels(
    run: Run, real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    code, out, _ = run("new", tmp_path / "p", "--images", real_data("ms-lesions"), "--json")
    assert code == 0
    assert [(c["id"], c["status"]) for c in json.loads(out)["cases"]] == [
        ("MS_007", "labelled"),
        ("MS_019", "labelled"),
    ]
    project = Project.open(tmp_path / "p")
    assert project.channels == ["FLAIR", "T1", "T1 post contrast", "T2"]
    volume = project.read_image("MS_007")
    assert volume.array.shape == (4, 182, 218, 182)
    label = project.read_label("MS_007")
    assert label is not None
    millilitres = float((label == 1).sum()) * np.prod(volume.spacing_mm) / 1000
    assert min(abs(millilitres - v) for v in (1.3, 49.8)) < 0.1


# ---- Left atrium, Pancreas-CT -------------------------------------------------------------------


def test_left_atrium(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "2018 challenge"
    voxels = {
        "lgemri": np.random.default_rng(0).integers(0, 200, SHAPE),
        "laendo": label_of(1, 1) * 255,
        "lawall": label_of(1) * 255,
    }
    parts = {"0RZDK210": "Training Set", "1D7CUD17": "Training Set", "4498JYJH": "Testing Set"}
    for name, part in parts.items():
        folder = root / part / name
        folder.mkdir(parents=True)
        for file, array in voxels.items():
            image = sitk.GetImageFromArray(array.astype(np.uint8))
            image.SetSpacing([0.625] * 3)
            if part == "Training Set" or file == "lgemri":
                sitk.WriteImage(image, folder / f"{file}.nrrd", True)
    code, out, _ = run("new", tmp_path / "p", "--images", root, "--json")
    assert code == 0
    assert [(c["id"], c["status"]) for c in json.loads(out)["cases"]] == [
        ("4498JYJH", "unlabelled"),
        ("0RZDK210", "labelled"),
        ("1D7CUD17", "labelled"),
    ]
    project = Project.open(tmp_path / "p")
    assert np.unique(project.read_label("0RZDK210"), return_counts=True)[1].tolist() == [334, 2]
    inner = project_from_folder(tmp_path / "q", root / "Training Set", labelled=1)
    assert [c.status for c in inner.cases] == ["labelled", "unlabelled"]
    shutil.copytree(root / "Training Set" / "0RZDK210", root / "Testing Set" / "0RZDK210")
    with pytest.raises(UserError, match=r"case 0RZDK210 twice, as Testing Set/0RZDK210/lgemri"):
        recognise(root)


def test_pancreas_ct(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "manifest-1599750808610"
    for number in (1, 2):
        deep = root / "Pancreas-CT" / f"PANCREAS_{number:04d}"
        deep = deep / "11-24-2015-PANCREAS0001-Pancreas-18957" / "Pancreas-63502"

        def hounsfield(data: Any, number: int) -> None:
            data.Modality, data.RescaleIntercept, data.RescaleSlope = "CT", -1024, 1

        save_series(deep, values(dtype="uint16"), change=hounsfield, description="Pancreas")
    label = sitk.GetImageFromArray((values() % 7 == 0).astype(np.uint8))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(deep)))
    label.CopyInformation(reader.Execute())
    labels = root / "TCIA_pancreas_labels-02-05-2017"
    labels.mkdir()
    sitk.WriteImage(label, labels / "label0002.nii.gz")
    code, out, err = run("new", tmp_path / "p", "--images", root, "--json")
    assert code == 0, err
    assert [(c["id"], c["status"]) for c in json.loads(out)["cases"]] == [
        ("PANCREAS_0001", "unlabelled"),
        ("PANCREAS_0002", "labelled"),
    ]
    project = Project.open(tmp_path / "p")
    image, drawn = project.read_image("PANCREAS_0002"), project.read_label("PANCREAS_0002")
    assert np.all((image.array[drawn == 1] + 1024) % 7 == 0)
    assert project.channels == ["CT"]
    # Labels without a place, as they once were handed out, are not put anywhere by guess.
    save_nifti(labels / "label0002.nii.gz", (values() % 7 == 0).astype(np.uint8), np.eye(4))
    code, _, err = run("new", tmp_path / "q", "--images", root)
    assert code == 2
    assert "Label label0002.nii.gz does not fit" in err.replace("\n", " ")
    save_series(deep.parent / "other", values())
    code, _, err = run("new", tmp_path / "q", "--images", root)
    assert code == 2
    assert "PANCREAS_0002 holds 2 series; expected one" in err.replace("\n", " ")


def test_labelled_counts_cases_that_have_a_label(tmp_path: Path) -> None:
    root = nnunet(tmp_path / "d")
    (root / "labelsTr" / "a_001.nii.gz").unlink()
    project = project_from_folder(tmp_path / "p", root, labelled=1)
    assert [case.id for case in project.labelled()] == ["a_002"]
