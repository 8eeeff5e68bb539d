"""The command ``cases`` chooses the cases that are used for validation only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.store import Project

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def project(scans: Path, tmp_path: Path) -> Project:
    return create_project(tmp_path / "p", scans / "images", scans / "labels", ["box"])


def list_validation_cases(project: Project) -> list[str]:
    return [c.id for c in Project.open(project.path).cases if c.split == "validation"]


def test_cases_become_validation_cases_and_training_cases_again(run: Run, project: Project) -> None:
    first, second = (case.id for case in project.cases[:2])
    code, out, _ = run("cases", project.path, "--validation", f"{first}, {second}", "--json")
    assert code == 0
    assert json.loads(out)["counts"]["validation"] == 2
    assert list_validation_cases(project) == [first, second]
    code, out, _ = run("cases", project.path, "--training", second)
    assert code == 0
    assert "1 for validation" in out
    assert list_validation_cases(project) == [first]


def test_nothing_changes_if_a_case_does_not_exist(run: Run, project: Project) -> None:
    first = project.cases[0].id
    code, _, err = run("cases", project.path, "--validation", f"{first},scan-99")
    assert code == 2
    assert "There is no case 'scan-99'" in err
    assert list_validation_cases(project) == []


def test_a_case_cannot_be_used_for_both(run: Run, project: Project) -> None:
    first = project.cases[0].id
    code, _, err = run("cases", project.path, "--validation", first, "--training", first)
    assert code == 2
    assert f"{first} cannot be used for both training and validation." in err
    assert list_validation_cases(project) == []


def test_names_chosen_in_the_window_are_listed(run: Run, project: Project) -> None:
    case_id = project.cases[0].id
    _, out, _ = run("cases", project.path)
    assert "│ name" not in out.replace("┃", "│")
    project.rename_case(case_id, "First patient")
    _, out, _ = run("cases", project.path)
    assert f"{case_id} │ First patient" in out
    _, out, _ = run("cases", project.path, "--json")
    assert json.loads(out)["cases"][0]["name"] == "First patient"


def test_a_change_is_explained_beside_the_table(run: Run, project: Project) -> None:
    first = project.cases[0].id
    _, out, err = run("cases", project.path, "--validation", first, "--json")
    assert f"{first}: validation only." in err
    json.loads(out)
    _, _, err = run("cases", project.path)
    assert "validation" not in err
