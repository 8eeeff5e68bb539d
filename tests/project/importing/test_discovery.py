"""Discovery of scans and labels in folders."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from helpers.dicom_files import make_voxels, save_series
from helpers.nifti_files import save_nifti
from helpers.scan_folders import list_names, save_scan

from napari_dycon.errors import FileFormatError, UserError
from napari_dycon.io import read_volume, write_mask
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.importing.discovery import (
    find_labels,
    find_scans,
    read_scan,
    scans_from_paths,
)
from napari_dycon.project.importing.patient_folders import find_patient_folders
from napari_dycon.project.store import Project

SHAPE = (6, 7, 8)


def test_unusual_and_unicode_names_are_accepted(tmp_path: Path) -> None:
    odd = ["Müller #2", "..x", "con", "患者 1", "a" * 200, "100%", "x(1)", "-dash", " space "]
    for number, name in enumerate(odd):
        save_scan(tmp_path / "images" / f"{name}.nii", number)
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


def test_folder_errors_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty" / "also").mkdir(parents=True)
    with pytest.raises(UserError, match=r"contains no scans; expected NIfTI files"):
        find_scans(tmp_path / "empty", "images")
    with pytest.raises(UserError, match=r"Folder .*none \(for the labels\) does not exist"):
        find_scans(tmp_path / "none", "labels")
    file = save_scan(tmp_path / "file" / "a.nii.gz")
    with pytest.raises(UserError, match="is a file; expected the folder of the images"):
        find_scans(file, "images")
    save_scan(tmp_path / "file" / "a.nii")
    with pytest.raises(UserError, match=r"contains a.nii and a.nii.gz, which are both named a;"):
        find_scans(tmp_path / "file", "images")
    save_scan(tmp_path / "below" / "p1" / "t1.nii.gz")
    with pytest.raises(UserError, match=r"subfolders do, such as p1/t1.nii.gz\. .*--channels"):
        find_scans(tmp_path / "below", "images")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="this user may read anything")
def test_unreadable_files_are_named(tmp_path: Path) -> None:
    save_series(tmp_path / "a" / "p1", make_voxels())
    save_series(tmp_path / "a" / "p2", make_voxels())
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


def test_links_are_followed_and_loops_detected(tmp_path: Path) -> None:
    save_series(tmp_path / "elsewhere" / "scan", make_voxels())
    save_series(tmp_path / "in" / "p2", make_voxels())
    (tmp_path / "in" / "p1").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "in", target_is_directory=True)
    (tmp_path / "in" / "p2" / "self").symlink_to(tmp_path / "in" / "p2", target_is_directory=True)
    (tmp_path / "in" / "0").symlink_to(tmp_path / "in" / "p2", target_is_directory=True)
    (tmp_path / "in" / "broken").symlink_to(tmp_path / "gone")
    assert list_names(tmp_path / "in") == ["p1", "p2"]
    assert read_volume(find_scans(tmp_path / "in", "images")[0].images[0]).shape == (5, 6, 7)


def test_labels_are_matched_to_the_scans_of_a_folder(tmp_path: Path) -> None:
    for name in ("b", "a", "c_0000"):
        save_scan(tmp_path / f"{name}.nii.gz")
    assert list(find_labels(tmp_path)) == ["a", "b", "c_0000"]


def test_images_and_labels_may_both_end_in_a_number(tmp_path: Path) -> None:
    for number, name in enumerate(("a_0000", "b_0000")):
        image = save_scan(tmp_path / "images" / f"{name}.nii.gz", number)
        like = read_volume(image)
        (tmp_path / "labels").mkdir(exist_ok=True)
        path = tmp_path / "labels" / f"{name}.nii.gz"
        write_mask(np.ones(like.shape, np.uint8), reference=like, path=path)
    project = create_project(tmp_path / "p", tmp_path / "images", tmp_path / "labels")
    assert [(c.id, c.status) for c in project.cases] == [
        ("a_0000", "labeled"), ("b_0000", "labeled"),
    ]  # fmt: skip


def test_chosen_files_of_a_series_are_one_scan(tmp_path: Path) -> None:
    files = save_series(tmp_path / "patient", make_voxels())
    other = save_scan(tmp_path / "other.nii.gz")
    found = scans_from_paths([*files, other])
    assert [(one.name, one.images) for one in found] == [
        ("patient", (files[0],)), ("other", (other,)),
    ]  # fmt: skip
    for gone in ("gone.dcm", "gone.nii.gz"):
        with pytest.raises(FileFormatError, match="does not exist"):
            read_scan(scans_from_paths([tmp_path / gone])[0].images, "gone")
