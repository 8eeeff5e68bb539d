"""What the *Review* tab and the lines around it say, and where its buttons are."""

from __future__ import annotations

from typing import Any

import pytest
from qtpy.QtCore import QPoint
from qtpy.QtWidgets import QScrollArea

from napari_dycon.application.activities import Activity
from napari_dycon.application.training.status import RunStatus
from napari_dycon.widgets.window.labels import ElidedLabel

pytestmark = pytest.mark.gui
LONG_TEXT = "Preparing reference scans: 1 of 4 (once per training), about 70 s left"


@pytest.fixture
def panel(example_panel: Any, qtbot: Any) -> Any:
    """Panel with the *Review* tab in front, in a small window."""
    example_panel[1].tabs.setCurrentIndex(2)
    qtbot.wait(200)
    return example_panel[1]


def test_buttons_to_accept_are_visible_on_a_small_screen(panel: Any) -> None:
    scroll = panel.tabs.currentWidget()
    assert isinstance(scroll, QScrollArea)
    review = panel.review
    for button in (
        review.next_region_button,
        review.next_case_button,
        review.accept_button,
        review.accept_structure_button,
        review.accept_slice_button,
        review.accept_component_button,
        review.accept_brush_button,
    ):
        bottom = button.mapTo(scroll.viewport(), QPoint(0, button.height())).y()
        assert bottom <= scroll.viewport().height(), button.text()


def test_a_long_name_moves_no_button(panel: Any, qtbot: Any) -> None:
    review = panel.review
    before = review.accept_button.geometry()
    panel.session.project_editor.rename_case("scan-3", "A patient with a very long name " * 3)
    qtbot.wait(50)
    assert review.accept_button.geometry() == before
    assert "very long name" in review.source_label.toolTip()


def test_accepting_says_what_was_accepted(panel: Any) -> None:
    messages: list[str] = []
    panel.session.message.connect(lambda _, text: messages.append(text))
    panel.session.state.undo_offered.connect(lambda text, _: messages.append(text))
    panel.layers.go_to_slice(6, 0)
    panel.review.accept_slice_button.click()
    panel.review.accept_prediction(component=(16, 16, 15))
    panel.review.accept_structure_button.click()
    panel.review.accept_button.click()
    panel.review.accept_button.click()
    assert messages == [
        "Prediction accepted in slice 7.",
        "Prediction accepted in this component.",
        "Prediction accepted for box.",
        "Prediction accepted for the whole scan; scan marked complete.",
        "Nothing changed: the label is already like the prediction here.",
    ]


def test_a_renamed_case_has_its_name_everywhere(panel: Any, qtbot: Any) -> None:
    session = panel.session
    session.project_editor.rename_case("scan-3", "Patient A")
    assert session.case.display_name == "Patient A"
    assert panel.review.source_label.text().endswith("for Patient A.")
    messages: list[str] = []
    session.message.connect(lambda _, text: messages.append(text))
    session.show_case("scan-4")
    qtbot.waitUntil(lambda: session.case.id == "scan-4", timeout=20_000)
    panel.review.next_case_button.click()
    qtbot.waitUntil(lambda: any(messages), timeout=20_000)
    assert any(text.startswith("Patient A: ") for text in messages), messages


def test_the_color_bar_tells_from_where_the_map_is_shown(panel: Any) -> None:
    bar, case = panel.review.overlay_controls.color_bar, panel.session.case
    panel.layers.overlays.set_threshold(0.3)
    case.display_thresholds = {}
    bar.refresh()
    assert bar._list_ticks() == [0.0, 0.3, 1.0]
    assert not bar.toolTip()
    assert bar.note_label.text() == "Shown from 0.30"
    case.display_thresholds = {"uncertainty": 0.97}
    bar.refresh()
    assert bar._list_ticks() == [0.0, 0.97]
    assert "0.97" in bar.toolTip()
    assert bar.note_label.isVisibleTo(panel.review)
    assert bar.note_label.visible_text() == "Shown from 0.97: the highest 10 %"  # all of it fits
    case.display_thresholds = {}
    panel.review.overlay_controls.threshold.setValue(0.05)
    assert bar._list_ticks() == [0.0, 1.0]
    assert not bar.toolTip()


def test_cases_for_validation_are_counted_beside_the_others(panel: Any) -> None:
    project, label = panel.session.require_project(), panel.data.count_label
    assert label.text() == "3 of 6 labeled"
    project.set_split(project.cases[0].id, "validation")
    panel.session.cases_changed.emit()
    assert label.text() == "3 of 6 labeled"
    assert "1 for validation" in label.toolTip()


def test_the_time_left_stays_legible(qtbot: Any) -> None:
    label = ElidedLabel()
    qtbot.addWidget(label)
    label.set_text(LONG_TEXT)
    label.resize(2000, 20)
    assert label.visible_text() == LONG_TEXT
    label.resize(label.fontMetrics().horizontalAdvance("X" * 25), 20)
    assert label.visible_text().startswith("Preparing")
    assert label.visible_text().endswith("…, 70 s left")
    assert label.fontMetrics().horizontalAdvance(label.visible_text()) <= label.width()
    label.set_text("Exporting left atrium, right atrium and more of these long names")
    assert label.visible_text().endswith("…")


def test_a_prediction_has_the_place_of_the_pause_button(panel: Any, qtbot: Any) -> None:
    row, activities = panel.progress_row, panel.task_runner.activities
    assert not activities.running
    panel.session.state.set_run_status(RunStatus("training", "001-dycon", 0.4, text="Training"))
    qtbot.wait(50)
    beside_training = row.label.width()
    stop = row.stop_button.x(), row.stop_button.width()
    panel.session.state.set_run_status(RunStatus())
    activity = Activity("Predicting")
    activities.add(activity)
    qtbot.wait(50)
    assert row.label.width() > beside_training + 40
    assert (row.stop_button.x(), row.stop_button.width()) == stop  # nothing moves under the mouse
    activities.remove(activity)
