"""The list of projects opened last."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from napari_dycon.application.projects import recent_projects
from napari_dycon.project.store import Project


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Twelve empty projects."""
    return [Project.create(tmp_path / f"project-{number}").path for number in range(12)]


def test_the_newest_ten_existing_projects_are_listed(folders: list[Path]) -> None:
    assert recent_projects.list_recent_projects() == []
    for folder in folders:
        recent_projects.add_recent_project(folder)
    assert recent_projects.list_recent_projects() == folders[:1:-1]
    recent_projects.add_recent_project(folders[5])
    assert recent_projects.list_recent_projects()[0] == folders[5]
    assert len(recent_projects.list_recent_projects()) == 10
    (folders[11] / "project.json").unlink()
    assert folders[11] not in recent_projects.list_recent_projects()
    recent_projects.clear_recent_projects()
    assert recent_projects.list_recent_projects() == []


def test_only_paths_are_stored(folders: list[Path], state_folder: Path) -> None:
    recent_projects.add_recent_project(folders[0])
    values = json.loads((state_folder / "recent-projects.json").read_text("utf-8"))
    assert values == {"projects": [str(folders[0])]}


@pytest.mark.parametrize("text", ["", "[]", '{"projects": 3}', '{"projects": [1, "\\u0000", "b"]}'])
def test_a_damaged_list_counts_as_empty(text: str, folders: list[Path], state_folder: Path) -> None:
    (state_folder / "recent-projects.json").write_text(text, "utf-8")
    assert recent_projects.list_recent_projects() == []
    recent_projects.add_recent_project(folders[0])
    assert recent_projects.list_recent_projects() == [folders[0]]


def test_a_home_folder_that_is_not_writable_does_no_harm(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NAPARI_DYCON_STATE", str(tmp_path / "file" / "state"))
    recent_projects.add_recent_project(folders[0])
    assert recent_projects.list_recent_projects() == []
