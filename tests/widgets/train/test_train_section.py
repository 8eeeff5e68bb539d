"""The Train tab: charts that only show, texts in words, everything within reach."""

from __future__ import annotations

from typing import Any

import pytest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication, QScrollArea
from superqt import QCollapsible

from napari_dycon.application.training.history import RunSummary
from napari_dycon.application.training.status import RunStatus
from napari_dycon.project.runs.events import (
    Event,
    FinishedEvent,
    StartedEvent,
    StepEvent,
    ValidationEvent,
)
from napari_dycon.project.store import Project

pytestmark = pytest.mark.gui


@pytest.fixture
def train_tab(shared_window: Any, qtbot: Any) -> Any:
    """Panel with the Train tab in view and one run in its charts."""
    _, panel = shared_window
    panel.tabs.setCurrentWidget(_find_scroll_area(panel))
    events: list[Event] = [StartedEvent(run="001-dycon", validation=1)]
    for step in range(1, 101):
        events.append(StepEvent(step=step, loss_terms={"supervised": 2.0 - step / 100}))
    events.append(ValidationEvent(step=100, mean=0.00042))
    panel.train.curves.add_events(events)
    summary = RunSummary(
        "001-dycon", "dycon", 3, 100, 0.42, None, "finished", [(100.0, 1.0)], [(100.0, 0.42)]
    )
    panel.train.history._fill([summary])
    qtbot.wait(100)
    return panel


def _find_scroll_area(panel: Any) -> QScrollArea:
    widget = panel.train
    while not isinstance(widget, QScrollArea):
        widget = widget.parentWidget()
    return widget


def list_charts(panel: Any) -> list[Any]:
    history = panel.train.history
    return [*panel.train.curves.plots.values(), history.dice_plot, history.loss_plot]


def turn_wheel(widget: Any, notches: int = -1) -> None:
    position = QPointF(widget.width() / 2, widget.height() / 2)
    event = QWheelEvent(
        position,
        QPointF(widget.mapToGlobal(position.toPoint())),
        QPoint(0, 0),
        QPoint(0, 120 * notches),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(widget, event)


def test_the_wheel_over_a_chart_scrolls_the_page_and_never_zooms(
    train_tab: Any, qtbot: Any
) -> None:
    train_tab.train.findChild(QCollapsible).expand(animate=False)
    qtbot.wait(100)
    scroll_bar = _find_scroll_area(train_tab).verticalScrollBar()
    assert scroll_bar.maximum() > 0
    charts = [chart for chart in list_charts(train_tab) if chart.isVisible()]
    assert len(charts) == 3  # two of the run, one of the history
    for chart in charts:
        before = chart.viewRange()
        scroll_bar.setValue(0)
        for _ in range(3):
            turn_wheel(chart.viewport())
        assert scroll_bar.value() > 0, (charts.index(chart), chart.geometry(), scroll_bar.maximum())
        assert chart.viewRange() == before
        turn_wheel(chart.viewport(), notches=20)
        assert scroll_bar.value() == 0
        assert chart.viewRange() == before
        assert not chart.getViewBox().mouseEnabled()[0]
        assert not chart.getViewBox().menuEnabled()


def test_axes_have_no_prefixes_and_dice_is_between_0_and_1(train_tab: Any) -> None:
    curves, history = train_tab.train.curves, train_tab.train.history
    for chart in list_charts(train_tab):
        for side in ("left", "bottom"):
            axis = chart.getAxis(side)
            assert axis.autoSIPrefix is False
            assert axis.autoSIPrefixScale == 1.0
    for chart in (curves.plots["dice"], history.dice_plot):
        low, high = chart.viewRange()[1]
        assert -0.2 < low <= 0 < 1 <= high < 1.2
    low, high = curves.plots["loss"].viewRange()[1]
    assert low <= 0
    assert 1.99 < high < 2.5
    ticks = curves.plots["dice"].getAxis("left")._tickLevels
    assert [text for _, text in ticks[0]] == ["0", "0.5", "1"]
    left, right = curves.plots["loss"].viewRange()[0]
    assert left <= 0 < 100 <= right < 120


def test_charts_follow_their_data(train_tab: Any) -> None:
    curves = train_tab.train.curves
    curves.add_event(StepEvent(step=400, loss_terms={"supervised": 9.0}))
    (_, right), (_, high) = curves.plots["loss"].viewRange()
    assert right >= 400
    assert high >= 9.0
    curves.clear()
    assert curves.plots["loss"].viewRange()[0][1] < 2


def test_charts_are_small_and_their_titles_are_whole(train_tab: Any, qtbot: Any) -> None:
    curves = train_tab.train.curves
    assert all(chart.height() <= 110 for chart in list_charts(train_tab))
    # Both charts of a run fit into the tab of a small screen.
    assert curves.height() < 290
    for title in curves.titles:
        assert title.height() >= title.heightForWidth(title.width())
    page = _find_scroll_area(train_tab).widget()
    assert page.height() >= page.minimumSizeHint().height()  # nothing is squeezed or cut


def test_the_state_of_a_run_is_told_in_words(train_tab: Any) -> None:
    state, train = train_tab.session.state, train_tab.train
    state.set_run_status(
        RunStatus(
            "training",
            "001-dycon",
            0.4,
            170.0,
            device="Running on the processor (no GPU support installed) – slower",
            device_details="CPU: torch 2.13.0+cpu was installed without CUDA support",
            text="Training",
            details="Step 10, loss 1.270",
            dice=0.44,
            n_validation=1,
        )
    )
    assert train.status_label.text() == (
        "Training, about 3 min left\nNetwork Dice on the validation case: 0.44"
    )
    assert "torch" not in train.device_label.text()
    assert "torch" in train.device_label.toolTip()
    assert "loss 1.270" in train.status_label.toolTip()
    state.set_run_status(RunStatus("pausing", "001-dycon", 0.4, text="Pausing…"))
    assert train.status_label.text() == "Pausing…"
    assert train_tab.progress_row.pause_button.text() == "Resume"
    state.set_run_status(RunStatus("stopping", "001-dycon", 0.4, text="Stopping…"))
    assert not train_tab.progress_row.stop_button.isEnabled()
    state.set_run_status(RunStatus())
    train_tab.session.state.run_event.emit(StartedEvent(run="001-dycon", validation=1))
    train_tab.session.state.run_event.emit(FinishedEvent(step=11, elapsed_s=240.0, dice=0.0))
    assert train.status_label.text() == (
        "Finished after 4 min, 11 steps.\nNetwork Dice on the validation case: 0.00"
    )


def test_texts_of_a_run_do_not_move_the_charts(train_tab: Any, qtbot: Any) -> None:
    state, curves = train_tab.session.state, train_tab.train.curves
    qtbot.wait(100)
    before = curves.geometry()
    device = "Running on the processor (no GPU support installed) – slower"
    for text in ("Training", "Pausing…"):
        state.set_run_status(
            RunStatus("training", "001-dycon", 0.4, 170.0, device, "", text, "", 0.44, 1)
        )
        qtbot.wait(50)
        assert curves.geometry() == before
    state.set_run_status(RunStatus())


def test_commands_are_shown_at_once_by_the_session(
    shared_window: Any, project: Project, qtbot: Any
) -> None:
    """With a real run: the text is there before the engine knows of the click."""
    _, panel = shared_window
    session = panel.session
    session.open_project(project.path)
    qtbot.waitUntil(lambda: session.project is not None, timeout=20_000)
    session.start_training(time_limit=600.0, device="cpu")
    assert panel.progress_row.label.text() == "Starting training (run 001)"
    panel.progress_row.pause_button.click()
    assert panel.progress_row.label.text() == "Pausing…"
    panel.progress_row.pause_button.click()
    assert session.status.phase == "training"
    panel.progress_row.stop_button.click()
    assert panel.progress_row.label.text() == "Stopping…"
    assert panel.train.status_label.text() == "Stopping…"
    qtbot.waitUntil(lambda: session.status.phase == "idle", timeout=120_000)
