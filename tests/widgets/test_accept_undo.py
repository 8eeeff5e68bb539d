"""Accepting a prediction is said, and *Undo* brings back label and status."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_dycon.project.models import Status

pytestmark = pytest.mark.gui


@pytest.fixture
def panel(example_panel: Any) -> Any:
    example_panel[1].tabs.setCurrentIndex(2)
    return example_panel[1]


def get_status(panel: Any) -> Status:
    return panel.session.require_project().get_case("scan-3").status


def prepare(panel: Any, qtbot: Any, status: Status) -> np.ndarray:
    """Give the case a label with a status; returns a copy of the label."""
    session = panel.session
    new = np.full(session.case.label.shape, 255, np.uint8)
    if status is not Status.UNLABELED:
        new[3:6, 3:6, 3:6] = 1
    session.set_label(new)
    session.flush()
    if status in (Status.LABELED, Status.REVIEWED):
        session.set_case_status("scan-3", status)
    qtbot.waitUntil(lambda: get_status(panel) is status, timeout=10_000)
    return session.case.label.copy()


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("way", ["button", "keys"])
def test_undo_restores_label_and_status(panel: Any, qtbot: Any, status: Status, way: str) -> None:
    session, bar = panel.session, panel.message_label
    before = prepare(panel, qtbot, status)
    panel.review.accept_button.click()
    assert "scan marked complete" in bar.text()
    assert ("no longer reviewed" in bar.text()) == (status is Status.REVIEWED)
    qtbot.waitUntil(lambda: get_status(panel) is Status.LABELED, timeout=10_000)
    accepted = session.case.label.copy()
    assert bar.undo_button.isVisible()
    if way == "button":
        bar.undo_button.click()
    else:
        panel.layers.find_layer("label").undo()
        session.save_label()
    assert np.array_equal(session.case.label, before)
    qtbot.waitUntil(lambda: get_status(panel) is status, timeout=10_000)
    qtbot.waitUntil(lambda: not session.has_unsaved_changes, timeout=10_000)
    saved = session.require_project().labels.read("scan-3")
    assert np.array_equal(saved, before)
    assert not bar.undo_button.isVisible()

    panel.layers.find_layer("label").redo()
    session.save_label()
    assert np.array_equal(session.case.label, accepted)
    qtbot.waitUntil(lambda: get_status(panel) is Status.LABELED, timeout=10_000)


def test_undo_never_takes_back_later_strokes(panel: Any, qtbot: Any) -> None:
    prepare(panel, qtbot, Status.UNLABELED)
    panel.review.accept_button.click()
    label = panel.layers.find_layer("label")
    label.paint((10, 10, 10), 1)
    drawn = panel.session.case.label.copy()
    panel.message_label.undo_button.click()
    assert np.array_equal(panel.session.case.label, drawn)
    assert "step by step" in panel.message_label.text()


def test_the_offer_goes_with_the_case_and_with_the_next_message(panel: Any, qtbot: Any) -> None:
    bar = panel.message_label
    prepare(panel, qtbot, Status.UNLABELED)
    panel.review.accept_button.click()
    assert bar.undo_button.isVisible()
    assert not bar._news_timer.isActive()  # it stays until it is used or replaced
    panel.session.show_case("scan-4")
    qtbot.waitUntil(lambda: panel.session.case.id == "scan-4", timeout=20_000)
    assert not bar.undo_button.isVisible()
    assert not bar.text()
