"""Labels and predictions of a project: concurrent changes, stale windows, classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.folder_trees import read_tree
from helpers.nifti_files import save_nifti

from napari_dycon.core import locks
from napari_dycon.errors import BusyError, LabelError, ProjectError, UserError
from napari_dycon.project import manifest
from napari_dycon.project.models import ClassInfo
from napari_dycon.project.store import Project

SHAPE = (20, 22, 18)


def save_scan(path: Path, seed: int = 0) -> Path:
    return save_nifti(path, np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32))


def test_an_orphaned_label_is_neither_replaced_nor_used(project: Project, tmp_path: Path) -> None:
    stray = project.path / "labels" / "New.nii.gz"
    stray.write_bytes(b"drawn by a user")
    label = save_nifti(tmp_path / "l.nii.gz", np.ones(SHAPE, np.uint8))
    (added,) = project.add_cases([save_scan(tmp_path / "new.nii.gz")], labels={"new": label})
    assert added.id == "new-2"
    assert project.labels.path("new-2").exists()
    assert stray.read_bytes() == b"drawn by a user"


def test_a_label_that_appears_in_the_meantime_is_kept(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = save_nifti(tmp_path / "l.nii.gz", np.ones(SHAPE, np.uint8))
    file = project.path / "labels" / "new.nii.gz"
    with pytest.raises(BusyError, match="was created at the same time"):
        project.add_cases(
            [save_scan(tmp_path / "new.nii.gz")],
            labels={"new": label},
            progress=lambda *_: (file.write_bytes(b"x"), None)[1],
        )
    assert file.read_bytes() == b"x"
    assert "new" not in {case.id for case in Project.open(project.path).cases}


def test_a_read_only_project_is_not_indexed(project: Project, tmp_path: Path) -> None:
    shown = Project.open(project.path, read_only_reason="open elsewhere")
    with pytest.raises(ProjectError, match="open elsewhere"):
        shown.add_cases([tmp_path / "not there.nii.gz"])


def test_a_stale_session_does_not_replace_a_label(project: Project, tmp_path: Path) -> None:
    """Both add a scan of one name: the second gets another id, the first keeps its label."""
    other = Project.open(project.path)
    one = save_nifti(tmp_path / "1.nii.gz", np.ones(SHAPE, np.uint8))
    none = save_nifti(tmp_path / "0.nii.gz", np.zeros(SHAPE, np.uint8))
    project.add_cases([save_scan(tmp_path / "a" / "new.nii.gz")], labels={"new": one})
    added = other.add_cases([save_scan(tmp_path / "b" / "new.nii.gz", 1)], labels={"new": none})
    assert [c.id for c in added] == ["new-2"]
    assert other.labels.read("new").all()
    assert not other.labels.read("new-2").any()


def test_the_status_is_read_from_the_file_and_not_cached(project: Project) -> None:
    other = Project.open(project.path)
    shape = other.read_image("scan-0").shape
    project.labels.save("scan-0", np.full(shape, 255, np.uint8))
    assert Project.open(project.path).get_case("scan-0").status == "unlabeled"
    other.labels.save("scan-0", np.ones(shape, np.uint8))  # thinks it still is "labeled"
    assert Project.open(project.path).get_case("scan-0").status == "labeled"


def test_many_concurrent_changes_are_all_kept(project: Project) -> None:
    other = Project.open(project.path)
    for number, case in enumerate(project.cases):
        (project, other)[number % 2].set_split(case.id, "validation")
        (other, project)[number % 2].set_status(case.id, "reviewed")
    for case in Project.open(project.path).cases:
        assert (case.split, case.status) == ("validation", "reviewed")


def test_a_held_lock_is_reported(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    short = locks.folder_lock
    monkeypatch.setattr(manifest, "folder_lock", lambda folder: short(folder, 0.05))
    with (
        locks.folder_lock(project.path),
        pytest.raises(BusyError, match="Another session or command is changing project"),
    ):
        project.set_split("scan-0", "validation")
    project.set_split("scan-0", "validation")


def test_invalid_label_arrays_are_refused(project: Project) -> None:
    shape = project.read_image("scan-0").shape
    before = read_tree(project.path)
    for array, words in (
        (np.full(shape, 0.5), "contains fractions"),
        (np.full(shape, -1), "unknown class -1"),
        (np.full(shape, 257), "unknown class 257"),
    ):
        with pytest.raises(LabelError, match=words):
            project.labels.save("scan-0", array)
    with pytest.raises(UserError, match=r"no case 'scan-O'.*Did you mean scan-"):
        project.labels.save("scan-O", np.ones(shape))
    assert read_tree(project.path) == before
    project.labels.save("scan-5", np.ones(shape, bool), status="reviewed")
    assert project.get_case("scan-5").status == "reviewed"
    assert project.labels.read("scan-5").dtype == np.uint8


def test_classes_can_be_added_and_changed(project: Project) -> None:
    assert project.add_class(" rim ").name == "rim"
    project.update_class(2, name="edge", color="#123456")
    assert Project.open(project.path).classes[1] == ClassInfo(value=2, name="edge", color="#123456")
    for change, words in (
        (lambda: project.add_class("  "), r"classes\.2\.name is invalid"),
        (lambda: project.add_class("x", "red"), r"classes\.2\.color is invalid.*found 'red'"),
        (lambda: project.set_status("scan-0", "done"), r"cases\.0\.status is invalid"),
        (lambda: project.set_split("scan-0", "test"), r"cases\.0\.split is invalid"),
    ):
        with pytest.raises(ProjectError, match=words) as caught:
            change()
        assert str(caught.value).endswith("Nothing was changed.")
        assert "\n" not in str(caught.value)
    assert [c.name for c in Project.open(project.path).classes] == ["box", "edge"]


def test_predictions_are_kept_by_run(project: Project) -> None:
    first, second = project.runs.create("dycon", {}), project.runs.create("supervised", {})
    shape = project.read_image("scan-0").shape
    mask = np.random.default_rng(0).integers(0, 2, shape).astype(np.uint8)
    maps = [np.random.default_rng(n).random(shape, np.float32) for n in (1, 2)]
    assert project.predictions.read(first.id, "scan-0") is None
    for run in (first, second):
        project.predictions.write(run.id, "scan-0", mask, *maps)
    assert project.predictions.list_run_ids("scan-0") == [second.id, first.id]
    assert project.predictions.list_run_ids("scan-1") == []
    assert np.array_equal(project.predictions.read(first.id, "scan-0"), mask)
    assert np.array_equal(project.predictions.read(first.id, "scan-0", "uncertainty"), maps[0])
    assert np.array_equal(project.predictions.read(first.id, "scan-0", "disagreement"), maps[1])
    for run_id in ("..", "../../elsewhere", "009-dycon"):
        with pytest.raises(ProjectError, match="does not exist"):
            project.predictions.write(run_id, "scan-0", mask, *maps)
    (project.path / "predictions" / "001-dycon.bak").write_text("")
    project.add_class("other")
    assert Project.open(project.path).predictions.list_run_ids("scan-0") == [second.id, first.id]
