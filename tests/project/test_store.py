"""The project folder: content, refusals, and atomic writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.nifti_files import save_nifti

from napari_dycon.core import atomic
from napari_dycon.core.heartbeat import ProcessIdentity
from napari_dycon.errors import GeometryError, LabelError, ProjectError, UserError
from napari_dycon.project.case_ids import is_case_id
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.runs.events import StepEvent
from napari_dycon.project.runs.metadata import RunControl
from napari_dycon.project.store import Project


def test_labels_decide_which_cases_are_labeled(project: Project) -> None:
    assert [c.id for c in project.labeled_cases()] == ["scan-0", "scan-1", "scan-2"]
    assert [c.id for c in project.unlabeled_cases()] == ["scan-3", "scan-4", "scan-5"]
    project.set_split("scan-1", "validation")
    again = Project.open(project.path / "project.json")
    assert [c.id for c in again.labeled_cases()] == ["scan-0", "scan-2"]
    assert [c.id for c in again.labeled_cases("validation")] == ["scan-1"]
    assert "scan-1" not in [c.id for c in again.unlabeled_cases()]


def test_status_follows_from_the_label(project: Project) -> None:
    label = np.full(project.read_image("scan-4").shape, 255, np.uint8)
    project.labels.save("scan-4", label)
    assert project.get_case("scan-4").status == "unlabeled"
    label[3] = 0
    label[3, 4:8, 4:8] = 1
    project.labels.save("scan-4", label)
    assert project.get_case("scan-4").status == "in_progress"
    assert np.array_equal(project.labels.read("scan-4"), label)
    label[label == 255] = 0
    project.labels.save("scan-4", label)
    assert project.get_case("scan-4").status == "labeled"
    project.set_status("scan-4", "reviewed")
    project.labels.save("scan-4", label)
    assert Project.open(project.path).get_case("scan-4").status == "reviewed"


def test_a_label_that_does_not_fit_is_refused(project: Project) -> None:
    before = project.labels.read("scan-0")
    with pytest.raises(GeometryError, match="does not fit case scan-0"):
        project.labels.save("scan-0", np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(LabelError, match=r"unknown class 7; expected 0 .background., 1 .box."):
        project.labels.save("scan-0", np.full(before.shape, 7, np.uint8))
    assert np.array_equal(project.labels.read("scan-0"), before)


def test_two_sessions_keep_the_changes_of_each_other(project: Project) -> None:
    other = Project.open(project.path)
    project.set_split("scan-3", "validation")
    other.add_class("tumor")
    project.reload()
    assert project.get_case("scan-3").split == "validation"
    assert [c.name for c in project.classes] == ["box", "tumor"]


@pytest.mark.parametrize("bad", ["../x", "a/b", "a\\b", ".hidden", "..", "", "con", "a..b", "x "])
def test_ids_cannot_leave_the_folder(bad: str, project: Project) -> None:
    assert not is_case_id(bad)
    values = json.loads((project.path / "project.json").read_text(encoding="utf-8"))
    values["cases"][0]["id"] = bad
    (project.path / "project.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ProjectError, match=r"cases\.0\.id is invalid"):
        Project.open(project.path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 99}, "newer version"),
        ({"classes": []}, "classes is invalid"),
        ({"surprise": 1}, "surprise is invalid"),
        ({"cases": [{"id": "a", "images": []}]}, r"cases\.0\.images is invalid"),
    ],
)
def test_a_damaged_project_gives_a_clear_error(
    change: dict[str, object], words: str, project: Project
) -> None:
    path = project.path / "project.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change), encoding="utf-8")
    with pytest.raises(ProjectError, match=words):
        Project.open(project.path)
    path.write_text("{ torn", encoding="utf-8")
    with pytest.raises(ProjectError, match="not valid JSON"):
        Project.open(project.path)


def test_a_bad_scan_leaves_no_files(scans: Path, tmp_path: Path) -> None:
    (scans / "images" / "scan-9.nii.gz").write_text("no scan")
    with pytest.raises(UserError, match=r"scan-9\.nii\.gz cannot be read"):
        create_project(tmp_path / "p", scans / "images", scans / "labels")
    assert not (tmp_path / "p").exists()


def test_unsuitable_project_folders_are_refused(
    scans: Path, tmp_path: Path, project: Project
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="contains no scans"):
        create_project(tmp_path / "p", tmp_path / "empty")
    with pytest.raises(UserError, match="does not exist"):
        create_project(tmp_path / "p", tmp_path / "missing")
    with pytest.raises(ProjectError, match="is already a project"):
        create_project(project.path, scans / "images")
    with pytest.raises(ProjectError, match="is not empty"):
        create_project(scans, scans / "images")
    save_nifti(scans / "labels" / "stray.nii.gz", np.ones((3, 3, 3), np.uint8))
    with pytest.raises(UserError, match="Label stray has no scan"):
        create_project(tmp_path / "p", scans / "images", scans / "labels")
    assert not (tmp_path / "p").exists()


def test_scans_are_referenced_relative_to_the_project(project: Project, scans: Path) -> None:
    values = json.loads((project.path / "project.json").read_text(encoding="utf-8"))
    assert values["cases"][0]["images"] == ["../scans/images/scan-0.nii.gz"]
    assert project.image_paths("scan-0") == [scans / "images" / "scan-0.nii.gz"]


def test_an_unwritable_folder_keeps_the_old_file(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (project.path / "labels" / "scan-0.nii.gz").read_bytes()

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(atomic.os, "replace", refuse)  # type: ignore[attr-defined]
    label = project.labels.read("scan-0")
    with pytest.raises(ProjectError, match=r"Permission denied.*old file is unchanged"):
        project.labels.save("scan-0", 1 - label)
    assert (project.path / "labels" / "scan-0.nii.gz").read_bytes() == before
    assert [p.name for p in (project.path / "labels").iterdir() if ".tmp." in p.name] == []


def test_runs_are_numbered_and_found(project: Project) -> None:
    first, second = (project.runs.create("dycon", {"method": "dycon"}) for _ in range(2))
    assert [r.id for r in project.runs.list()] == ["001-dycon", "002-dycon"]
    with pytest.raises(ProjectError, match="no trained weights"):
        project.runs.get()
    first.weights_path.write_bytes(b"x")
    assert project.runs.get().id == first.id
    with pytest.raises(ProjectError, match=r"Run 'nope' does not exist.*001-dycon, 002-dycon"):
        project.runs.get("nope")
    assert second.method == "dycon"


def test_events_are_read_incrementally_and_incomplete_lines_are_deferred(project: Project) -> None:
    run = project.runs.create("dycon", {})
    run.append_event(StepEvent(step=1))
    events, offset = run.read_events()
    assert [e.step for e in events] == [1]
    with run.events_path.open("ab") as file:
        file.write(b'{"event": "step", "st')
    assert run.read_events(offset) == ([], offset)
    with run.events_path.open("ab") as file:
        file.write(b'ep": 2}\n')
    assert [e.step for e in run.read_events(offset)[0]] == [2]


def test_changes_of_the_run_control_are_merged(project: Project) -> None:
    run = project.runs.create("dycon", {})
    assert run.read_control() == RunControl()
    run.write_control(command="pause")
    run.write_control(preview="scan-0")
    assert run.read_control() == RunControl(command="pause", preview="scan-0")


def test_an_unknown_case_gives_similar_names(project: Project) -> None:
    with pytest.raises(UserError, match="Did you mean scan-"):
        project.get_case("scan-11")


def test_a_process_recognizes_its_own_identity() -> None:
    me = ProcessIdentity.current()
    assert me.is_alive()
    assert ProcessIdentity.from_dict(me.to_dict()) == me
    assert not ProcessIdentity(me.pid, me.host, me.started - 100).is_alive()
