"""Recently shown cases come from memory as long as their files are unchanged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_dycon.application.cases import cache as cache_module
from napari_dycon.application.cases.cache import CaseCache
from napari_dycon.project.store import Project
from napari_dycon.session import Session


@pytest.fixture
def read_cases(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of cases that are read from files."""
    found: list[str] = []
    real = cache_module.load_case  # type: ignore[attr-defined]

    def counted(project: Project, case_id: str, *limits: float) -> Any:
        found.append(case_id)
        return real(project, case_id, *limits)

    monkeypatch.setattr(cache_module, "load_case", counted)
    return found


def test_a_case_is_read_once_and_its_label_can_be_edited(
    project: Project, read_cases: list[str]
) -> None:
    session = Session()
    session.open_project(project.path)
    session.preload_cases(["scan-0", "scan-1"])
    session.show_case("scan-0")
    assert read_cases == ["scan-0", "scan-1"]
    assert session.case is not None
    before = session.case.label.copy()
    new = before.copy()
    new[0] = 1
    session.set_label(new)
    session.show_case("scan-1")  # saves
    session.show_case("scan-0")  # its label is another one now
    assert read_cases == ["scan-0", "scan-1", "scan-0"]
    assert np.array_equal(session.case.label, new)
    session.case.label[1] = 0  # not saved by anybody
    assert np.array_equal(
        session.case_service.cache.load(session.require_project(), "scan-0").case.label, new
    )
    assert read_cases == ["scan-0", "scan-1", "scan-0"]


def test_a_change_of_any_file_invalidates_the_cache(
    project: Project, read_cases: list[str]
) -> None:
    cache = CaseCache()
    cache.load(project, "scan-3")
    cache.load(project, "scan-3")
    assert len(read_cases) == 1
    shape = project.read_image("scan-3").shape
    mask, empty = np.ones(shape, np.uint8), np.zeros(shape, np.float32)
    run = project.runs.create("dycon", {})
    project.predictions.write(run.id, "scan-3", mask, empty, empty)
    assert cache.load(project, "scan-3").case.run == run.id
    project.predictions.write(run.id, "scan-3", 0 * mask, empty, empty)
    assert not np.any(cache.load(project, "scan-3").case.prediction)
    project.labels.save("scan-3", mask)
    assert np.all(cache.load(project, "scan-3").case.label == 1)
    assert len(read_cases) == 4
    scan = project.image_paths("scan-3")[0]
    scan.write_bytes(project.image_paths("scan-4")[0].read_bytes())
    again = cache.load(project, "scan-3").case.image.array
    assert np.array_equal(again, project.read_image("scan-4").array)


def test_cache_memory_is_limited(project: Project, read_cases: list[str]) -> None:
    size = cache_module._count_bytes(cache_module.load_case(project, "scan-0").case)  # type: ignore[attr-defined]
    read_cases.clear()
    cache = CaseCache(max_bytes=2 * size + 1)
    for case in ("scan-0", "scan-1", "scan-2", "scan-2", "scan-0"):
        cache.load(project, case)
    assert read_cases == ["scan-0", "scan-1", "scan-2", "scan-0"]
    small = CaseCache(max_bytes=size)
    small.load(project, "scan-0")
    small.load(project, "scan-0")
    assert read_cases[-2:] == ["scan-0", "scan-0"]


def test_cases_too_large_for_the_cache_are_not_prefetched(
    project: Project, read_cases: list[str]
) -> None:
    session = Session()
    session.open_project(project.path)
    session.show_case("scan-0")
    session.case_service.cache = CaseCache(max_bytes=1)
    read_cases.clear()
    session.preload_cases(["scan-1", "scan-2"])
    assert read_cases == []
    session.case_service.cache = CaseCache()
    session.preload_cases(["scan-1", "scan-2"])
    assert read_cases == ["scan-1", "scan-2"]
