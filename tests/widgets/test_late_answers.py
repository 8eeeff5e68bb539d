"""Answers that come late never take the place of what the user chose since."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_dycon.errors import ProjectError
from napari_dycon.project.label_store import LabelStore
from napari_dycon.project.runs.events import FailedEvent
from napari_dycon.project.store import Project

pytestmark = pytest.mark.gui


@pytest.fixture
def panel(opened_panel: Any) -> Any:
    """Panel on the example, with scan-3 in view."""
    return opened_panel[1]


def click(panel: Any, case_id: str) -> None:
    rows = panel.data.case_list
    place = rows.visualItemRect(rows._items[case_id]).center()
    QTest.mouseClick(rows.viewport(), Qt.MouseButton.LeftButton, pos=place)


@pytest.fixture
def held_reading(panel: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Let scan-4 be read only after a call, which waits until all tasks have ended."""
    cache, may_end = panel.session.case_service.cache, threading.Event()
    load = cache.load

    def load_late(project: Project, case_id: str, *limits: float) -> Any:
        if case_id == "scan-4":
            assert may_end.wait(20)
        return load(project, case_id, *limits)

    def release() -> None:
        may_end.set()
        qtbot.waitUntil(lambda: panel.task_runner.is_idle, timeout=20_000)

    monkeypatch.setattr(cache, "load", load_late)
    yield release
    release()


def test_a_click_on_the_active_case_takes_back_a_click_on_another(
    panel: Any, qtbot: Any, held_reading: Callable[[], None]
) -> None:
    click(panel, "scan-4")
    qtbot.wait(50)
    click(panel, "scan-3")
    held_reading()
    assert panel.session.case.id == "scan-3"


def test_a_suggestion_never_takes_the_place_of_a_case_that_was_clicked_later(
    panel: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, may_end = panel.session, threading.Event()
    list_suggestions = session.list_suggestions

    def list_late() -> Any:
        assert may_end.wait(20)
        return list_suggestions()

    monkeypatch.setattr(session, "list_suggestions", list_late)
    panel.review.next_case()
    click(panel, "scan-5")
    qtbot.waitUntil(lambda: session.case.id == "scan-5", timeout=20_000)
    may_end.set()
    qtbot.waitUntil(lambda: panel.task_runner.is_idle, timeout=20_000)
    assert session.case.id == "scan-5"


def test_an_error_at_the_next_case_stays_legible(
    panel: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ProjectError("The disk is full.")

    with monkeypatch.context() as failing:
        failing.setattr(LabelStore, "save", fail)
        panel.session.case.label[1, 1, 1] = 1
        panel.review.next_case()
        qtbot.waitUntil(lambda: panel.task_runner.is_idle, timeout=20_000)
        assert panel.message_label.level == "error"
        assert "disk is full" in panel.message_label.text()
    panel.session.flush()


def test_a_prediction_that_failed_is_no_outcome_of_a_training(panel: Any) -> None:
    state, status = panel.session.state, panel.train.status_label
    status.setText("Finished after 3 min, 120 steps.")
    state.event.emit(FailedEvent(message="The prediction ended unexpectedly."))
    assert status.text() == "Finished after 3 min, 120 steps."
    state.run_event.emit(FailedEvent(message="Memory ran out."))
    assert status.text() == "Memory ran out."
