"""Cases removed from a project and restored: nothing is lost, also after a crash at any moment."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.project_files import read_all_files, read_manifest

from napari_dycon.errors import ProjectError, UserError
from napari_dycon.project.store import Project

CRASH_CODE = 77


@pytest.fixture
def predicted_project(project: Project) -> Project:
    """The project with predictions of scan-1 and scan-2 by two runs."""
    for _ in range(2):
        run = project.runs.create("dycon", {})
        for case in ("scan-1", "scan-2"):
            shape = project.read_image(case).shape
            zeros = np.zeros(shape, np.float32)
            project.predictions.write(run.id, case, np.ones(shape, np.uint8), zeros, zeros)
    return project


def test_records_in_subfolders_of_a_run_follow_the_case(predicted_project: Project) -> None:
    project = predicted_project
    folder = project.path / "predictions" / "001-dycon" / "accepted"
    folder.mkdir()
    for case in ("scan-1", "scan-2"):
        (folder / f"{case}.json").write_text("{}")
    project.removed_cases.remove("scan-1")
    assert [file.name for file in folder.iterdir()] == ["scan-2.json"]
    project.removed_cases.restore("scan-1")
    assert (folder / "scan-1.json").is_file()


def list_contents(project: Project) -> list[bytes]:
    """Contents of all labels and predictions, wherever in the project they are."""
    return sorted(
        data for name, data in read_all_files(project.path).items() if name.endswith(".nii.gz")
    )


def test_a_removed_case_is_restored_completely(predicted_project: Project) -> None:
    project = predicted_project
    before, cases = read_all_files(project.path), project.cases
    scans = {path: path.read_bytes() for path in project.image_paths("scan-1")}
    project.removed_cases.remove("scan-1")
    assert [case.id for case in project.cases] == [c.id for c in cases if c.id != "scan-1"]
    with pytest.raises(UserError, match="no case 'scan-1'"):
        project.labels.read("scan-1")
    assert not list((project.path / "labels").glob("scan-1*"))
    assert not list((project.path / "predictions").rglob("scan-1*"))
    assert (project.path / "removed" / "cases" / "scan-1" / "labels" / "scan-1.nii.gz").is_file()
    assert {path: path.read_bytes() for path in scans} == scans
    assert [removed.case.id for removed in Project.open(project.path).removed_cases.list()] == [
        "scan-1"
    ]
    assert project.removed_cases.restore("scan-1") == cases[1]
    assert project.cases == cases
    assert project.removed_cases.list() == []
    after = read_all_files(project.path)
    assert {k: v for k, v in after.items() if "project.json" not in k and ".lock" not in k} == {
        k: v for k, v in before.items() if "project.json" not in k and ".lock" not in k
    }


def test_the_prediction_of_a_similarly_named_case_stays(project: Project, scans: Path) -> None:
    source = scans / "images" / "scan-0.nii.gz"
    other = shutil.copyfile(source, scans / "scan-1_uncertainty.nii.gz")
    project.add_cases([other])
    run = project.runs.create("dycon", {})
    shape = project.read_image("scan-1").shape
    zeros = np.zeros(shape, np.float32)
    project.predictions.write(run.id, "scan-1_uncertainty", np.ones(shape, np.uint8), zeros, zeros)
    project.removed_cases.remove("scan-1")
    assert project.predictions.read(run.id, "scan-1_uncertainty").all()


def test_the_id_of_a_removed_case_is_not_used_again(project: Project) -> None:
    (scan,) = project.image_paths("scan-1")
    project.removed_cases.remove("scan-1")
    notes: list[str] = []
    (added,) = project.add_cases([scan], on_note=notes.append)
    assert added.id == "scan-1-2"
    assert "removed from this project earlier" in notes[0]
    assert project.labels.read(added.id) is None
    with pytest.raises(UserError, match=r"was added again as scan-1-2\. Remove that case first"):
        project.removed_cases.restore("scan-1")
    project.removed_cases.remove(added.id)
    assert project.removed_cases.restore("scan-1").id == "scan-1"
    assert (project.labels.read("scan-1") == 1).any()


def test_a_label_written_after_the_removal_is_not_replaced(project: Project) -> None:
    """Another session may save its label late."""
    late = project.labels.path("scan-1")
    project.removed_cases.remove("scan-1")
    shutil.copyfile(project.labels.path("scan-0"), late)
    project.removed_cases.restore("scan-1")
    assert np.array_equal(project.labels.read("scan-1"), project.labels.read("scan-0"))
    kept = project.path / "removed" / "cases" / "scan-1" / "labels" / "scan-1.nii.gz"
    assert kept.is_file()
    project.removed_cases.remove("scan-1")
    assert kept.is_file()
    assert len(list((project.path / "removed").rglob("labels/scan-1.nii.gz"))) == 2


def test_a_read_only_project_is_unchanged(project: Project) -> None:
    before = read_all_files(project.path)
    read_only = Project.open(project.path, read_only_reason="it is archived")
    for change in (
        lambda: read_only.removed_cases.remove("scan-1"),
        lambda: read_only.removed_cases.restore("scan-1"),
        lambda: read_only.rename_case("scan-1", "first"),
        lambda: read_only.structures.delete(1),
    ):
        with pytest.raises(ProjectError, match="read-only: it is archived"):
            change()
    assert read_all_files(project.path) == before


def test_damaged_and_hostile_records_are_ignored(project: Project, tmp_path: Path) -> None:
    project.removed_cases.remove("scan-1")
    folder = project.path / "removed" / "cases"
    record = json.loads((folder / "scan-1" / "case.json").read_text("utf-8"))
    for number, values in enumerate(
        (
            [],
            {"case": {}},
            record | {"case": record["case"] | {"id": "../../scan-9"}},
            record | {"case": record["case"] | {"images": ["http://host/x.nii"]}},
            record | {"index": -1},
            record | {"removed_at": "now"},
        )
    ):
        (folder / f"bad-{number}").mkdir()
        (folder / f"bad-{number}" / "case.json").write_text(json.dumps(values), "utf-8")
    (tmp_path / "outside").mkdir()
    shutil.copyfile(folder / "scan-1" / "case.json", tmp_path / "outside" / "case.json")
    (folder / "link").symlink_to(tmp_path / "outside")
    assert [removed.case.id for removed in project.removed_cases.list()] == ["scan-1"]


def test_scans_of_removed_cases_are_shown_before_an_untrusted_project_opens(
    project: Project, tmp_path: Path
) -> None:
    project.removed_cases.remove("scan-1")
    path = project.path / "removed" / "cases" / "scan-1" / "case.json"
    values = json.loads(path.read_text("utf-8"))
    values["case"]["images"] = [str(tmp_path / "secret" / "scan.nii.gz")]
    path.write_text(json.dumps(values), "utf-8")
    assert tmp_path / "secret" in project.external_folders()


def crash_at(path: Path, action: str, number: int) -> None:
    """End this process at the n-th renaming or writing of a file."""
    done = 0

    def count(function):  # type: ignore[no-untyped-def]
        def call(*arguments, **options):  # type: ignore[no-untyped-def]
            nonlocal done
            done += 1
            if done > number:
                os._exit(CRASH_CODE)
            return function(*arguments, **options)

        return call

    os.replace, os.fsync = count(os.replace), count(os.fsync)
    Path.mkdir, Path.unlink = count(Path.mkdir), count(Path.unlink)  # type: ignore[method-assign]
    perform(Project.open(path), action)
    os._exit(0)


def perform(project: Project, action: str) -> None:
    if action == "remove":
        project.removed_cases.remove("scan-1")
    elif action == "restore":
        project.removed_cases.restore("scan-1")
    elif action == "rename":
        project.rename_case("scan-1", "first patient")
    else:
        project.structures.delete(1)


@pytest.mark.parametrize("action", ["remove", "restore", "rename"])
def test_a_crash_at_any_moment_loses_no_label(predicted_project: Project, action: str) -> None:
    project = predicted_project
    label = project.labels.read("scan-1")
    contents = list_contents(project)
    if action == "restore":
        project.removed_cases.remove("scan-1")
    saved = project.path.parent / "saved"
    shutil.copytree(project.path, saved)
    context = multiprocessing.get_context("fork")
    for number in range(200):
        process = context.Process(target=crash_at, args=(project.path, action, number))
        process.start()
        process.join(60)
        assert process.exitcode in (0, CRASH_CODE)
        # Whatever was reached: the project opens, and its label can be brought back.
        found = Project.open(project.path)
        assert [data for data in list_contents(found) if data in contents] == contents
        if all(case.id != "scan-1" for case in found.cases):
            found.removed_cases.restore("scan-1")
        assert np.array_equal(found.labels.read("scan-1"), label)
        assert len(found.predictions.list_run_ids("scan-1")) == 2
        assert len(found.cases) == 6
        # The action can be done again, and undone.
        if action == "remove":
            found.removed_cases.remove("scan-1")
            found.removed_cases.restore("scan-1")
            assert np.array_equal(found.labels.read("scan-1"), label)
        shutil.rmtree(project.path)
        shutil.copytree(saved, project.path)
        if process.exitcode == 0:
            break
    assert process.exitcode == 0, "the action has more steps than were tried"
    assert number > 3


def test_a_case_is_renamed_without_renaming_files(project: Project) -> None:
    before = read_all_files(project.path / "labels")
    assert "name" not in read_manifest(project)["cases"][1]
    project.rename_case("scan-1", "  first patient ")
    assert project.get_case("scan-1").display_name == "first patient"
    assert Project.open(project.path).get_case("scan-1").display_name == "first patient"
    assert read_all_files(project.path / "labels") == before
    for name, words in (
        ("FIRST patient", 'There is already a case called "first patient".'),
        ("scan-1", 'There is already a case called "first patient".'),
        ("SCAN-0", None),
        ("a\nb", "characters that cannot be shown"),
        ("x" * 151, "at most 150 characters"),
    ):
        if words is None:
            project.rename_case("scan-0", name)
            continue
        with pytest.raises(UserError, match=words):
            project.rename_case("scan-0", name)
    project.rename_case("scan-1", "scan-1")
    assert "name" not in read_manifest(project)["cases"][1]
