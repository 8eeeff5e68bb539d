"""One set of buttons for a running training, and no empty chart without an explanation."""

from __future__ import annotations

from typing import Any

import pytest

from napari_dycon.application.activities import Activity
from napari_dycon.application.training.status import RunStatus
from napari_dycon.project.runs.events import StartedEvent, StepEvent, ValidationEvent
from napari_dycon.project.store import Project
from napari_dycon.widgets.data.case_menu import CaseMenu
from napari_dycon.widgets.train.curves import NEXT_TRAINING_TEXT, NO_VALIDATION_TEXT

pytestmark = pytest.mark.gui


@pytest.fixture
def opened(shared_window: Any, project: Project, qtbot: Any) -> Any:
    _, panel = shared_window
    panel.session.open_project(project.path)
    qtbot.waitUntil(lambda: panel.session.project is not None, timeout=20_000)
    panel.tabs.setCurrentIndex(1)
    qtbot.wait(200)
    return panel


def is_chart_shown(panel: Any) -> bool:
    curves = panel.train.curves
    is_shown: bool = curves.plots["dice"].isVisible()
    assert curves.titles[0].isVisible() == is_shown
    assert curves.dice_note.isVisible() != is_shown
    return is_shown


def test_training_is_paused_and_stopped_in_one_place(opened: Any) -> None:
    opened.session.state.set_run_status(RunStatus("training", "001-dycon", 0.4, text="Training"))
    row, train = opened.progress_row, opened.train
    assert row.pause_button.isVisible()
    assert row.stop_button.text() == "Stop"
    assert not train.stop_button.isVisible()
    opened.session.state.set_run_status(RunStatus())
    assert not row.stop_button.isVisible()


def test_training_can_be_stopped_while_the_row_shows_a_prediction(opened: Any) -> None:
    opened.session.state.set_run_status(RunStatus("training", "001-dycon", 0.4, text="Training"))
    activity = Activity("Predicting", can_cancel=True)
    activities = opened.task_runner.activities
    activities.add(activity)
    assert opened.progress_row.stop_button.text() == "Cancel"
    assert opened.train.stop_button.isVisible()
    assert opened.train.stop_button.isEnabled()
    opened.session.state.set_run_status(RunStatus("stopping", "001-dycon", 0.4, text="Stopping…"))
    assert not opened.train.stop_button.isEnabled()
    activities.remove(activity)
    assert not opened.train.stop_button.isVisible()
    opened.session.state.set_run_status(RunStatus())


def test_an_activity_alone_stops_no_training(opened: Any) -> None:
    activity = Activity("Exporting")
    opened.task_runner.activities.add(activity)
    assert not opened.train.stop_button.isVisible()
    opened.task_runner.activities.remove(activity)


def test_no_chart_without_a_validation_case(opened: Any, project: Project) -> None:
    assert not is_chart_shown(opened)
    assert opened.train.curves.dice_note.text() == NO_VALIDATION_TEXT
    opened.session.project.set_split("scan-1", "validation")
    opened.session.cases_changed.emit()
    assert not is_chart_shown(opened)
    assert opened.train.curves.dice_note.text() == NEXT_TRAINING_TEXT


def test_the_chart_of_a_training_with_validation_is_shown_from_the_start(opened: Any) -> None:
    session = opened.session
    session.state.set_run_status(RunStatus("training", "001-dycon", 0.1, text="Training"))
    for event in (
        StartedEvent(run="001-dycon", validation=1),
        StepEvent(step=1, loss_terms={"supervised": 1.0}),
    ):
        session.state.run_event.emit(event)
    assert is_chart_shown(opened)
    session.state.run_event.emit(ValidationEvent(step=1, mean=0.4))
    session.state.set_run_status(RunStatus())
    assert is_chart_shown(opened)  # the project has no validation case, but this run had one


def test_a_training_without_validation_says_so(opened: Any) -> None:
    session = opened.session
    session.state.set_run_status(RunStatus("training", "001-dycon", 0.1, text="Training"))
    session.state.run_event.emit(StartedEvent(run="001-dycon", validation=0))
    session.state.run_event.emit(StepEvent(step=1, loss_terms={"supervised": 1.0}))
    assert not is_chart_shown(opened)
    assert opened.train.curves.dice_note.text() == NO_VALIDATION_TEXT
    session.state.set_run_status(RunStatus())


def test_the_menu_says_what_a_change_means(opened: Any) -> None:
    messages: list[tuple[str, str]] = []
    opened.session.message.connect(lambda level, text: messages.append((level, text)))
    case = opened.session.project.get_case("scan-1")
    menu = CaseMenu(opened, opened.session, case, lambda _: None)
    menu.split_action.trigger()
    assert opened.session.project.get_case("scan-1").split == "validation"
    (message,) = messages
    assert message[0] == "info"
    assert message[1].startswith("scan-1: validation only.")
