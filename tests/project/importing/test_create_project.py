"""Creating projects from folders: failures and interruptions leave the disk unchanged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.nifti_files import save_nifti

from napari_dycon.errors import ProjectError, UserError
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.store import Project

SHAPE = (20, 22, 18)


def save_scan(path: Path, seed: int = 0) -> Path:
    return save_nifti(path, np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32))


def test_an_empty_project_can_be_created(tmp_path: Path) -> None:
    made = Project.create(tmp_path / "a" / "b", channels=("flair", "t1"), name="Lesions")
    again = Project.open(tmp_path / "a" / "b")
    assert (again.name, again.channels, again.cases) == ("Lesions", ["flair", "t1"], [])
    assert [(c.value, c.name) for c in made.classes] == [(1, "structure")]
    assert again.labeled_cases() == again.unlabeled_cases() == again.runs.list() == []
    assert Project.is_project(tmp_path / "a" / "b")
    assert not Project.is_project(tmp_path)
    with pytest.raises(ProjectError, match="is already a project"):
        Project.create(tmp_path / "a" / "b")


def test_the_project_folder_may_exist_if_empty(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    assert len(create_project(tmp_path / "p", scans / "images").cases) == 6
    (tmp_path / "file").write_text("")
    with pytest.raises(ProjectError, match="is a file"):
        Project.create(tmp_path / "file")


def test_classes_are_read_from_the_labels(scans: Path, tmp_path: Path) -> None:
    label = np.zeros(SHAPE, np.uint8)
    label[4], label[5] = 3, 255
    save_nifti(scans / "labels" / "scan-1.nii.gz", label)
    project = create_project(tmp_path / "p", scans / "images", scans / "labels")
    assert [(c.value, c.name) for c in project.classes] == [(1, "class 1"), (3, "class 3")]
    assert len({c.color for c in project.classes}) == 2
    # 255 is no class: it marks unannotated voxels.
    assert [c.status for c in project.cases[:3]] == ["labeled", "in_progress", "labeled"]


def test_class_names_are_free_text(scans: Path, tmp_path: Path) -> None:
    names = ["class two", "class 1"]
    project = create_project(tmp_path / "p", scans / "images", scans / "labels", names)
    assert [(c.value, c.name) for c in project.classes] == [(1, "class two"), (2, "class 1")]
    for wrong in (["a", ""], ["x" * 61], [f"c{i}" for i in range(255)]):
        with pytest.raises(UserError, match="class names cannot be used"):
            create_project(tmp_path / "q", scans / "images", None, wrong)
    with pytest.raises(UserError, match='Two structures are called "Box"'):
        create_project(tmp_path / "q", scans / "images", None, ["box", "Box"])
    assert not (tmp_path / "q").exists()


@pytest.mark.parametrize("existed", [True, False])
def test_a_failed_creation_leaves_no_files(existed: bool, scans: Path, tmp_path: Path) -> None:
    save_nifti(scans / "images" / "scan-7.nii.gz", np.zeros(SHAPE, np.int16))
    target = tmp_path / "new" / "deep" / "p"
    if existed:
        target.mkdir(parents=True)
    with pytest.raises(UserError, match=r"scan-7\.nii\.gz has the same value"):
        create_project(target, scans / "images", scans / "labels")
    assert target.exists() is existed
    assert (tmp_path / "new").exists() is existed
    assert not existed or list(target.iterdir()) == []


def test_an_interrupted_creation_leaves_no_files(scans: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int, name: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create_project(tmp_path / "p", scans / "images", progress=interrupt)
    assert not (tmp_path / "p").exists()


def test_files_with_the_same_name_are_refused(scans: Path, tmp_path: Path) -> None:
    save_scan(scans / "images" / "scan-0.nii")
    with pytest.raises(UserError, match=r"contains scan-0\.nii(\.gz)? and scan-0\.nii"):
        create_project(tmp_path / "p", scans / "images")


def test_hidden_and_unrelated_files_are_skipped(scans: Path, tmp_path: Path) -> None:
    for name in ("._scan-0.nii.gz", ".DS_Store", "notes.txt", "dataset.json"):
        (scans / "images" / name).write_text("not a scan")
    (scans / "images" / "folder.nii.gz").mkdir()
    assert len(create_project(tmp_path / "p", scans / "images").cases) == 6
