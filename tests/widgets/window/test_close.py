"""Closing windows during runs, and projects that are open elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psutil
import pytest
from helpers.tiny_runs import TINY

from napari_dycon.application import engine_process
from napari_dycon.application.labels.autosave import LabelAutosaver
from napari_dycon.engine.config import make_config
from napari_dycon.errors import ProjectError
from napari_dycon.project.label_store import LabelStore
from napari_dycon.project.store import Project
from napari_dycon.session import Session

pytestmark = pytest.mark.gui
ENDLESS = {**TINY, "steps": 10_000_000}


@pytest.fixture
def record_prompts(
    monkeypatch: pytest.MonkeyPatch, screenshot_folder: Any
) -> Callable[[str], list[str]]:
    """Answer the next questions by the text of a button; returns what was asked."""
    from qtpy.QtWidgets import QMessageBox

    def answer(text: str) -> list[str]:
        asked: list[str] = []

        def exec_(box: QMessageBox) -> None:
            asked.append(box.text())
            box.show()
            box.grab().save(str(screenshot_folder / f"question-{box.windowTitle() or 'asked'}.png"))
            next(b for b in box.buttons() if b.text().replace("&", "") == text).click()

        monkeypatch.setattr(QMessageBox, "exec", exec_)
        return asked

    return answer


def window_during_training(
    window: Callable[[], Any], project: Project, qtbot: Any
) -> tuple[Any, Any]:
    viewer, panel = window()
    panel.session.open_project(project.path)
    qtbot.waitUntil(lambda: panel.session.project is not None, timeout=20_000)
    panel.session.start_training(make_config("supervised", **ENDLESS))
    qtbot.waitUntil(lambda: panel.session.status.phase == "training", timeout=120_000)
    return viewer, panel


def close_as_user(viewer: Any) -> None:
    """Close a window as Ctrl+W and the menu do."""
    main = viewer.window._qt_window
    main.close(confirm_need=True)
    if not main.isVisible():
        del viewer.window._qt_window  # as napari's own Window.close does


def test_a_user_who_closes_the_window_can_cancel_or_stop_the_run(
    window: Callable[[], Any],
    project: Project,
    qtbot: Any,
    record_prompts: Callable[[str], list[str]],
) -> None:
    viewer, _panel = window_during_training(window, project, qtbot)
    main, asked = viewer.window._qt_window, record_prompts("Cancel")
    run = project.runs.list()[-1]
    close_as_user(viewer)
    assert len(asked) == 1
    assert main.isVisible()
    qtbot.wait(200)
    assert engine_process.is_running(run)
    assert run.read_events()[0][-1].event not in ("stopped", "finished", "failed")
    asked = record_prompts("Stop and save")
    close_as_user(viewer)
    assert len(asked) == 1
    assert not main.isVisible()
    qtbot.waitUntil(lambda: not engine_process.is_running(run), timeout=60_000)
    assert run.has_weights
    assert run.read_events()[0][-1].event == "stopped"


def test_a_run_goes_on_without_the_window_and_is_shown_again(
    window: Callable[[], Any],
    project: Project,
    qtbot: Any,
    record_prompts: Callable[[str], list[str]],
) -> None:
    """By the choice of the user, and without a prompt if a program closes the window."""
    viewer, panel = window_during_training(window, project, qtbot)
    main, asked = viewer.window._qt_window, record_prompts("Keep training")
    run = project.runs.list()[-1]
    close_as_user(viewer)
    assert len(asked) == 1
    assert not main.isVisible()
    assert engine_process.is_running(run)
    # Opened again, the run is attached with its curves from the first step on.
    viewer, panel = window()
    panel.session.open_project(project.path)
    qtbot.waitUntil(lambda: panel.session.status.phase == "training", timeout=60_000)
    qtbot.waitUntil(lambda: len(panel.train.curves.points["loss"][0]) > 3, timeout=60_000)
    assert panel.train.curves.points["loss"][0][0] == 1
    asked = record_prompts("Cancel")
    viewer.close()
    assert not asked
    assert engine_process.is_running(run)
    # And a third time, to stop it.
    _, panel = window()
    panel.session.open_project(project.path)
    qtbot.waitUntil(lambda: panel.session.status.phase == "training", timeout=60_000)
    panel.session.stop()
    qtbot.waitUntil(lambda: panel.session.status.phase == "idle", timeout=60_000)
    qtbot.waitUntil(lambda: not engine_process.is_running(run), timeout=60_000)
    assert run.has_weights
    assert run.read_events()[0][-1].event == "stopped"


def test_a_project_in_use_can_be_opened_read_only(
    window: Callable[[], Any],
    project: Project,
    qtbot: Any,
    record_prompts: Callable[[str], list[str]],
    save_screenshot: Callable[[Any, str], None],
) -> None:
    other = Session()
    other.open_project(project.path)
    asked = record_prompts("Open read-only")
    viewer, panel = window()
    session = panel.session
    session.open_project(project.path)
    qtbot.waitUntil(lambda: session.project is not None, timeout=20_000)
    assert "is already open" in asked[0]
    session.show_case("scan-0")
    qtbot.waitUntil(lambda: session.case is not None, timeout=20_000)
    label = next(layer for layer in viewer.layers if layer.name == "label")
    assert not label.editable
    label.mode = "paint"
    assert str(label.mode) == "pan_zoom"
    for button in (
        panel.train.start_button,
        panel.data.add_button,
        panel.annotate.completion.scan_button,
    ):
        assert not button.isEnabled()
        assert "viewing only" in button.toolTip()
    session.show_case("scan-1")
    qtbot.waitUntil(lambda: session.case.id == "scan-1", timeout=20_000)
    assert not label.editable
    save_screenshot(viewer, "only-shown")
    other.close_project()


def test_a_dead_engine_process_leaves_a_usable_window(
    window: Callable[[], Any], project: Project, qtbot: Any
) -> None:
    _, panel = window_during_training(window, project, qtbot)
    session, said = panel.session, []
    session.message.connect(lambda level, text: said.append((level, text)))
    identity = engine_process.read_identity(project.runs.list()[-1])
    assert identity is not None
    psutil.Process(identity.pid).kill()
    qtbot.waitUntil(lambda: session.status.phase == "idle", timeout=30_000)
    assert any(level == "error" and "terminated" in text for level, text in said), said
    assert "Traceback" not in str(said)
    qtbot.waitUntil(lambda: not panel.task_runner.bars.shown, timeout=20_000)
    assert panel.train.start_button.isEnabled()
    assert not panel.progress_row.stop_button.isVisible()
    session.start_training(make_config("supervised", **TINY))
    qtbot.waitUntil(lambda: session.status.phase == "idle", timeout=120_000)
    assert project.runs.list()[-1].has_weights


def test_a_label_that_cannot_be_saved_keeps_the_window_open(
    window: Callable[[], Any], project: Project, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer, panel = window()
    session, said = panel.session, []
    session.open_project(project.path)
    qtbot.waitUntil(lambda: session.project is not None, timeout=20_000)
    session.show_case("scan-3")
    qtbot.waitUntil(lambda: session.case is not None, timeout=20_000)

    def full(*_: Any, **__: Any) -> None:
        raise ProjectError("The disk is full.")

    monkeypatch.setattr(LabelStore, "save", full)
    monkeypatch.setattr(LabelAutosaver, "write_recovery_copy", full)
    session.message.connect(lambda _, text: said.append(text))
    session.case.label[0] = 1
    main = viewer.window._qt_window
    for words in ("could not be saved", "saved anywhere", "saved anywhere"):
        main.close()
        assert main.isVisible()
        assert words in said[-1]
    monkeypatch.undo()
    main.close()
    assert not main.isVisible()
    del viewer.window._qt_window
    assert project.labels.read("scan-3")[0].all()


def test_a_panel_is_released_although_its_label_can_be_saved_nowhere(
    own_panel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, panel = own_panel

    def fail(*_: object, **__: object) -> None:
        raise ProjectError("The disk is full.")

    monkeypatch.setattr(LabelStore, "save", fail)
    monkeypatch.setattr(LabelAutosaver, "write_recovery_copy", fail)
    panel.session.case.label[1, 1, 1] = 1
    panel.release()
    assert panel.task_runner._has_closed.is_set()
    assert panel.message_label.level == "error"
