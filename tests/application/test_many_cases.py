"""The benchmark project with many cases, at a fortieth of its size."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from napari_dycon.session import Session


@pytest.fixture
def projects() -> Any:
    """The benchmark's module that makes projects."""
    path = Path(__file__).parents[2] / "benchmarks" / "window_projects.py"
    spec = importlib.util.spec_from_file_location("window_projects", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_project_of_many_cases_stays_responsive(projects: Any, tmp_path: Path) -> None:
    path = projects.make_many(tmp_path, 50)
    session = Session()
    session.open_project(path)
    project = session.require_project()
    assert len(project.cases) == 50
    assert len(project.labeled_cases()) == 13
    assert project.has_labeled_cases()
    assert not project.has_labeled_cases("validation")
    suggested = session.list_suggestions()
    assert sorted(found.case for found in suggested) == [c.id for c in project.unlabeled_cases()]
    assert all(found.score is not None for found in suggested)
    newest = project.predictions.newest_run_ids()
    assert newest == {c.id: project.predictions.list_run_ids(c.id)[0] for c in project.cases}
    session.show_case("case-00001")
    assert session.require_case().prediction is not None
