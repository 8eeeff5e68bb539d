"""Scans added to a project: each once; unusable ones are left out."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.dicom_files import make_voxels, save_series
from helpers.nifti_files import save_nifti

from napari_dycon.errors import FileFormatError, LabelError, ProjectError, UserError
from napari_dycon.project.importing.case_import import SkippedScan
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.importing.discovery import scans_from_paths
from napari_dycon.project.store import Project

SHAPE = (6, 7, 8)


def save_scan(path: Path, seed: int = 0) -> Path:
    return save_nifti(path, np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32))


def damage_file(path: Path) -> Path:
    save_scan(path)
    path.write_bytes(path.read_bytes()[:300])
    return path


# ---- The same scan twice ------------------------------------------------------------------------


def test_an_existing_scan_is_not_added_twice(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "p")
    one, two = save_scan(tmp_path / "a" / "one.nii.gz"), save_scan(tmp_path / "a" / "two.nii.gz", 1)
    project.add_cases([one])
    notes: list[str] = []
    added = project.add_cases([one, two, two], on_note=notes.append)
    assert [case.id for case in added] == ["two"]
    assert notes == [
        "one was left out: it is already case one.",
        "two was left out: it is already case two.",
    ]
    link = tmp_path / "other name.nii.gz"
    link.symlink_to(one)
    (tmp_path / "b").symlink_to(tmp_path / "a", target_is_directory=True)
    for again in (one, tmp_path / "a" / ".." / "a" / "one.nii.gz", link, tmp_path / "b" / one.name):
        with pytest.raises(UserError, match=r"Nothing was added\. .* it is already case one\."):
            project.add_cases([again])
    assert [case.id for case in Project.open(project.path).cases] == ["one", "two"]
    shutil.copy(one, tmp_path / "copy.nii.gz")  # another file, and perhaps another patient
    assert [case.id for case in project.add_cases([tmp_path / "copy.nii.gz"])] == ["copy"]


def test_channels_are_part_of_the_identity_of_a_scan(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "p", channels=["a", "b"])
    noise = np.random.default_rng(0).normal(size=(*SHAPE, 2)).astype(np.float32)
    (both,) = scans_from_paths([save_nifti(tmp_path / "both.nii.gz", noise)])
    other = save_scan(tmp_path / "other.nii.gz")
    first, second = both.images
    project.add_cases([both.images])
    added = project.add_cases([both.images, [second, first], [first, other]])
    assert [case.id for case in added] == ["both-2", "both-3"]
    with pytest.raises(UserError, match=r"both was left out.* So were 1 more\."):
        project.add_cases([both.images, [second, first]])


def test_any_file_of_a_series_identifies_the_series(tmp_path: Path) -> None:
    files = save_series(tmp_path / "anna", make_voxels())
    project = Project.create(tmp_path / "p")
    project.add_cases([found.images for found in scans_from_paths([tmp_path / "anna"])])
    with pytest.raises(UserError, match="it is already case anna"):
        project.add_cases([found.images for found in scans_from_paths([files[3]])])


# ---- One bad scan -------------------------------------------------------------------------------


def test_valid_scans_are_added_without_a_bad_one(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "p")
    noise = np.random.default_rng(0).normal(size=(*SHAPE, 2)).astype(np.float32)
    two = scans_from_paths([save_nifti(tmp_path / "two.nii.gz", noise)])[0].images
    label = save_nifti(tmp_path / "drawn.nii.gz", np.ones(SHAPE, np.uint8))
    images = [
        damage_file(tmp_path / "bad.nii.gz"),
        save_scan(tmp_path / "good.nii.gz"),
        two,
        tmp_path / "gone.nii.gz",
    ]
    out: list[SkippedScan] = []
    seen: list[int] = []
    added = project.add_cases(
        images,
        labels={"bad": label, "good": label},
        value_map={2: 1},
        on_skip=out.append,
        progress=lambda done, _total, _name: seen.append(done),
    )
    assert [(case.id, case.status) for case in added] == [("good", "labeled")]
    assert seen == [1, 2, 3, 4]
    assert [one.scan.name for one in out] == ["bad", "two", "gone"]
    assert (out[0].label, out[0].value_map) == (label, {2: 1})
    assert out[0].message.startswith("bad was left out: bad.nii.gz ")
    assert "two has 2 channels, but the project has 1" in out[1].to_dict()["reason"]
    assert "does not exist" in out[2].message


def test_if_all_scans_are_bad_the_first_error_is_reported_and_nothing_created(
    tmp_path: Path,
) -> None:
    for name in ("a", "b"):
        damage_file(tmp_path / "in" / f"{name}.nii.gz")
    out: list[SkippedScan] = []
    with pytest.raises(FileFormatError, match=r"a\.nii\.gz"):
        create_project(tmp_path / "p", tmp_path / "in", on_skip=out.append)
    assert out == []
    assert not (tmp_path / "p").exists()


def test_errors_of_labels_and_the_folder_are_not_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        save_scan(tmp_path / "in" / f"{name}.nii.gz")
    save_nifti(tmp_path / "labels" / "a.nii.gz", np.full(SHAPE, 9, np.uint8))
    out: list[SkippedScan] = []
    with pytest.raises(LabelError, match="unknown class 9"):
        create_project(
            tmp_path / "p", tmp_path / "in", tmp_path / "labels", ["box"], on_skip=out.append
        )

    def unplugged(*_: object, **__: object) -> None:
        raise ProjectError("the drive is gone")

    monkeypatch.setattr("napari_dycon.project.importing.case_import.read_scan", unplugged)
    with pytest.raises(ProjectError, match="drive is gone"):
        create_project(tmp_path / "p", tmp_path / "in", on_skip=out.append)
    assert out == []
    assert not (tmp_path / "p").exists()
