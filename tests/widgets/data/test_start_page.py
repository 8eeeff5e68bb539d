"""The page shown while no project is open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from qtpy.QtWidgets import QFileDialog

from napari_dycon.application.projects.recent_projects import (
    add_recent_project,
    list_recent_projects,
)
from napari_dycon.demo import sample_project
from napari_dycon.project.store import Project

pytestmark = pytest.mark.gui
Window = Callable[[], Any]


def test_recent_projects_are_listed_opened_and_cleared(
    window: Window, project: Project, tmp_path: Path, qtbot: Any
) -> None:
    other = Project.create(tmp_path / "other")
    add_recent_project(other.path)
    add_recent_project(tmp_path / "missing")
    _, panel = window()
    page = panel.data.start_page
    assert page.isVisibleTo(panel)
    assert not panel.data.case_list.isVisibleTo(panel)
    qtbot.waitUntil(lambda: page.list.count() == 1, timeout=20_000)
    assert page.list.item(0).text() == f"other  —  {tmp_path}"
    panel.session.open_project(project.path)
    qtbot.waitUntil(lambda: panel.session.project is not None, timeout=20_000)
    assert not page.isVisibleTo(panel)
    qtbot.waitUntil(lambda: list_recent_projects() == [project.path, other.path], timeout=20_000)
    panel.session.close_project()
    qtbot.waitUntil(lambda: page.list.count() == 2, timeout=20_000)
    page.list.itemClicked.emit(page.list.item(1))
    qtbot.waitUntil(lambda: panel.session.project is not None, timeout=20_000)
    assert panel.session.project.path == other.path
    panel.session.close_project()
    page.clear_button.click()
    qtbot.waitUntil(lambda: page.list.count() == 0, timeout=20_000)
    assert list_recent_projects() == []
    assert page.recent_label.text() == "No recent projects"


def test_the_sample_project_is_made_and_opened(
    window: Window, tmp_path: Path, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_project, "CASES", 3)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    _, panel = window()
    panel.data.start_page.sample_button.click()
    qtbot.waitUntil(lambda: panel.session.project is not None, timeout=120_000)
    project = panel.session.project
    assert project.path == tmp_path / "napari-dycon-sample" / "project"
    assert [case.status for case in project.cases] == ["labeled", "labeled", "unlabeled"]
    assert [info.name for info in project.classes] == ["organ", "lesion"]
    panel.session.close_project()
    panel.data.start_page.sample_button.click()  # opened, not made again
    qtbot.waitUntil(lambda: panel.session.project is not None, timeout=20_000)
