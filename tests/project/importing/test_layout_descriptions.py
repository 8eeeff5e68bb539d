"""Data sets that a `dataset.json` describes: nnU-Net raw and the Medical Segmentation Decathlon."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.nifti_files import SHAPE, make_label, save_nifti, save_scan

from napari_dycon.errors import UserError
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.importing.layouts.registry import detect_layout
from napari_dycon.project.store import Project

Run = Callable[..., tuple[int, str, str]]


def write_description(root: Path, **about: Any) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(about), encoding="utf-8")


def make_nnunet_dataset(root: Path, channels: int = 2, **about: Any) -> Path:
    """nnU-Net's second version: three cases for training, one for testing."""
    write_description(
        root,
        **{
            "channel_names": {str(n): ("CT", "PET", "T2")[n] for n in range(channels)},
            "labels": {"background": 0, "tumor": 1, "node": 2},
            "numTraining": 3,
            "file_ending": ".nii.gz",
        }
        | about,
    )
    for folder, cases in (("imagesTr", ("a_001", "a_002", "b")), ("imagesTs", ("t_009",))):
        for number, case in enumerate(cases):
            for channel in range(channels):
                save_scan(root / folder / f"{case}_{channel:04d}.nii.gz", number)
            if folder == "imagesTr":
                save_nifti(root / "labelsTr" / f"{case}.nii.gz", make_label(1, 2))
    return root


def test_an_nnunet_raw_dataset_is_recognized(run: Run, tmp_path: Path) -> None:
    root = make_nnunet_dataset(tmp_path / "nnUNet_raw" / "Dataset042_Tumors")
    code, out, _ = run("new", tmp_path / "p", "--images", root, "--max-labels", 2, "--json")
    assert code == 0
    made = json.loads(out)
    assert [(c["id"], c["status"], len(c["images"])) for c in made["cases"]] == [
        ("a_001", "labeled", 2),
        ("a_002", "labeled", 2),
        ("b", "unlabeled", 2),
        ("t_009", "unlabeled", 2),
    ]
    project = Project.open(tmp_path / "p")
    assert project.channels == ["CT", "PET"]
    assert [(c.value, c.name) for c in project.classes] == [(1, "tumor"), (2, "node")]
    one = create_project(tmp_path / "q", root, channels=["pet"], classes=["x", "y"])
    assert one.channels == ["PET"]
    assert one.image_paths("b")[0].name == "b_0001.nii.gz"
    assert [c.name for c in one.classes] == ["x", "y"]
    with pytest.raises(UserError, match=r"has no channel 'MR'; expected some of: CT, PET\."):
        create_project(tmp_path / "r", root, channels=["MR"])
    with pytest.raises(UserError, match=r"Found 1 class name, but .* has 2: tumor, node"):
        create_project(tmp_path / "r", root, classes=["x"])


def test_the_first_nnunet_version_is_recognized_and_hidden_files_ignored(tmp_path: Path) -> None:
    root = make_nnunet_dataset(
        tmp_path / "Task500_Things", 1, channel_names={}, modality={"0": "CT"},
        labels={"0": "background", "1": "tumor", "2": "node"},
        training=[{"image": "./imagesTr/b.nii.gz", "label": "./labelsTr/b.nii.gz"}], test=[],
    )  # fmt: skip
    values = json.loads((root / "dataset.json").read_text())
    del values["channel_names"]
    write_description(root, **values)
    for place in ("imagesTr/._b_0000.nii.gz", "labelsTr/._b.nii.gz", "imagesTs/._t.nii.gz"):
        (root / place).write_bytes(b"of a Mac")
    project = create_project(tmp_path / "p", root)
    assert project.channels == ["CT"]
    assert [c.id for c in project.labeled_cases()] == ["a_001", "a_002", "b"]


def test_ignored_labels_of_nnunet_are_unannotated(tmp_path: Path) -> None:
    root = make_nnunet_dataset(
        tmp_path / "d", labels={"background": 0, "tumor": 1, "node": 2, "ignore": 3}
    )
    save_nifti(root / "labelsTr" / "b.nii.gz", make_label(1, 2, 3, 3))
    project = create_project(tmp_path / "p", root)
    assert [c.value for c in project.classes] == [1, 2]
    assert {int(v): int(n) for v, n in zip(*np.unique(project.labels.read("b"), return_counts=True),
                                           strict=True)}[255] == 2  # fmt: skip
    assert project.get_case("b").status == "in_progress"
    save_nifti(root / "labelsTr" / "b.nii.gz", make_label(4))
    with pytest.raises(UserError, match=r"Label b.nii.gz contains the unknown class 4"):
        create_project(tmp_path / "q", root)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        (
            {"labels": {"background": 0, "whole": [1, 2], "core": [2]}},
            r"defines regions \(whole\)",
        ),
        ({"labels": {"background": 0}}, '"labels" names no structure'),
        ({"labels": [0, 1]}, '"labels" is not a mapping of names and values'),
        ({"labels": {"background": 0, "x": 300}}, r"gives 'x' the value 300; expected 0 to 254"),
        ({"labels": {"background": 0, "x": None}}, "gives 'x' the value None"),
        ({"labels": {"background": 0, "x": 1, "X": 2}}, "class name must be unique"),
        ({"labels": {"0": "background", "1": " "}}, "gives ' ' the value '1'"),
        ({"channel_names": "CT"}, '"channel_names" is not a mapping of names and values'),
        ({"channel_names": {"CT": 0, "PET": 1}}, "does not number the channels"),
        ({"channel_names": {"0": "CT"}}, r"a_001 has 2 channels; expected 1, .*: CT\."),
        ({"channel_names": {"0": "CT", "1": "P", "2": "Q"}}, r"a_001 has 2 .* expected 3"),
    ],
)
def test_mismatched_descriptions_are_refused(
    run: Run, about: dict[str, Any], words: str, tmp_path: Path
) -> None:
    root = make_nnunet_dataset(tmp_path / "d", **about)
    code, out, err = run("new", tmp_path / "p", "--images", root)
    assert (code, out) == (2, "")
    assert re.search(words, err.replace("\n", " ")), err
    assert "Traceback" not in err
    assert not (tmp_path / "p").exists()


def test_broken_and_incomplete_datasets_are_refused(run: Run, tmp_path: Path) -> None:
    def refused(words: str) -> None:
        code, out, err = run("new", tmp_path / "p", "--images", root)
        assert (code, out) == (2, "")
        assert words in err.replace("\n", " "), err
        assert not (tmp_path / "p").exists()

    root = make_nnunet_dataset(tmp_path / "d")
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
    refused("contains no scans")


def make_decathlon_dataset(root: Path, channels: int = 1) -> Path:
    """As unpacked from Task02_Heart.tar or Task05_Prostate.tar, with what a Mac left in it."""
    write_description(
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
            save_nifti(root / f"labels{place}.nii.gz", make_label(1))
            (root / "labelsTr" / f"._{hidden.name}").write_bytes(b"\0\5\x16\7of a Mac")
    (root / "._dataset.json").write_bytes(b"\0\5\x16\7of a Mac")
    return root


def test_a_decathlon_dataset_is_recognized(run: Run, tmp_path: Path) -> None:
    root = make_decathlon_dataset(tmp_path / "Task02_Heart")
    code, out, _ = run("new", tmp_path / "p", "--images", root, "--json")
    assert code == 0
    assert [(c["id"], c["status"]) for c in json.loads(out)["cases"]] == [
        ("la_0005", "labeled"),
        ("la_003", "labeled"),
        ("la_004", "labeled"),
        ("la_001", "unlabeled"),
    ]
    project = Project.open(tmp_path / "p")
    assert project.channels == ["MRI"]
    assert [(c.value, c.name) for c in project.classes] == [(1, "left atrium")]


def test_a_decathlon_dataset_with_4d_files_is_recognized(tmp_path: Path) -> None:
    root = make_decathlon_dataset(tmp_path / "Task05_Prostate", 2)
    project = create_project(tmp_path / "p", root)
    assert project.channels == ["MRI", "ADC"]
    assert project.get_case("la_001").images == [
        "../Task05_Prostate/imagesTs/la_001.nii.gz#0",
        "../Task05_Prostate/imagesTs/la_001.nii.gz#1",
    ]
    both = project.read_image("la_003").array
    assert both.shape[0] == 2
    adc = create_project(tmp_path / "q", root, channels=["ADC"])
    assert np.array_equal(adc.read_image("la_003").array, both[1])
    assert np.array_equal(adc.labels.read("la_003"), project.labels.read("la_003"))
    write_description(root, modality={"0": "MRI"}, labels={"0": "background", "1": "x"})
    with pytest.raises(UserError, match=r"Case la_0005 has 2 channels; expected 1, "):
        create_project(tmp_path / "r", root)


def test_a_real_dataset_with_four_channels_is_read(
    run: Run, real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    code, out, _ = run("new", tmp_path / "p", "--images", real_data("ms-lesions"), "--json")
    assert code == 0
    assert [(c["id"], c["status"]) for c in json.loads(out)["cases"]] == [
        ("MS_007", "labeled"),
        ("MS_019", "labeled"),
    ]
    project = Project.open(tmp_path / "p")
    assert project.channels == ["FLAIR", "T1", "T1 post contrast", "T2"]
    volume = project.read_image("MS_007")
    assert volume.array.shape == (4, 182, 218, 182)
    label = project.labels.read("MS_007")
    assert label is not None
    millilitres = float((label == 1).sum()) * np.prod(volume.spacing_mm) / 1000
    assert min(abs(millilitres - v) for v in (1.3, 49.8)) < 0.1


def test_a_dataset_next_to_other_scans_does_not_hide_them(tmp_path: Path) -> None:
    for patient in ("anna", "ben"):  # whose folders are named as BraTS names its cases
        for channel in ("flair", "t1", "t1ce", "t2"):
            save_scan(tmp_path / "few" / patient / "scan1" / f"scan1_{channel}.nii.gz", 0)
    assert detect_layout(tmp_path / "few") is None
    study = tmp_path / "study"
    for channel in ("CT", "PET"):
        save_scan(study / "p1" / f"{channel}.nii.gz", 0)
    make_nnunet_dataset(study / "export")
    assert detect_layout(study) is None
    project = create_project(tmp_path / "p", tmp_path / "few", channels=["t1", "flair"])
    assert [case.id for case in project.cases] == ["anna", "ben"]


def test_a_link_to_a_dataset_is_not_a_second_dataset(tmp_path: Path) -> None:
    make_nnunet_dataset(tmp_path / "raw" / "Dataset001_A")
    (tmp_path / "raw" / "latest").symlink_to(tmp_path / "raw" / "Dataset001_A")
    found = detect_layout(tmp_path / "raw")
    assert found is not None
    assert len(found.cases) == 4
    make_nnunet_dataset(
        tmp_path / "raw" / "Dataset002_B", labels={"background": 0, "whole": [1, 2]}
    )
    with pytest.raises(UserError, match="2 datasets: Dataset001_A, Dataset002_B"):
        detect_layout(tmp_path / "raw")


def test_unreadable_folders_are_reported(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_nnunet_dataset(tmp_path / "d")
    is_file = Path.is_file

    def refused(path: Path) -> bool:  # as for a folder of which names alone may be read
        if path.parent == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refused)
    code, _, err = run("new", tmp_path / "p", "--images", folder)
    assert code == 2
    assert "cannot be read (Permission denied)" in err.replace("\n", " ")


def test_labeled_counts_cases_that_have_a_label(tmp_path: Path) -> None:
    root = make_nnunet_dataset(tmp_path / "d")
    (root / "labelsTr" / "a_001.nii.gz").unlink()
    project = create_project(tmp_path / "p", root, n_labeled=1)
    assert [case.id for case in project.labeled_cases()] == ["a_002"]
