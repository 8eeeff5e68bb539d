"""The program's own window: title, File menu, start screen, and what is asked when it closes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from napari._qt.dialogs.confirm_close_dialog import ConfirmCloseDialog
from qtpy.QtCore import Qt
from qtpy.QtGui import QCloseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDialog, QFileDialog, QLabel, QMessageBox

from napari_dycon.application.activities import Activity
from napari_dycon.core.types import ItemProgressCallback
from napari_dycon.project.store import Project
from napari_dycon.widgets.dialogs.new_project import NewProjectDialog
from napari_dycon.widgets.window.own_window import OwnWindow

pytestmark = pytest.mark.gui


@pytest.fixture
def own(window: Callable[[], Any], qtbot: Any) -> Any:
    """The program's own window, without a project."""
    viewer, panel = window()
    OwnWindow(viewer, panel)
    qtbot.wait(100)
    return viewer, panel


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record questions; those of napari and ours are refused."""
    texts: list[str] = []

    def refuse_napari(_: Any) -> int:
        texts.append("napari")
        return QDialog.DialogCode.Rejected

    def refuse(box: QMessageBox) -> None:
        texts.append(box.text())
        box.show()
        next(b for b in box.buttons() if b.text().replace("&", "") == "Cancel").click()

    for name in ("exec", "exec_"):
        monkeypatch.setattr(ConfirmCloseDialog, name, refuse_napari, raising=False)
    monkeypatch.setattr(QMessageBox, "exec", refuse)
    return texts


def open_case(panel: Any, project: Project, qtbot: Any) -> None:
    panel.session.open_project(project.path)
    qtbot.waitUntil(lambda: panel.session.project is not None, timeout=20_000)
    panel.session.show_case("scan-3")
    qtbot.waitUntil(lambda: panel.session.case is not None, timeout=20_000)
    qtbot.wait(300)


def close_by_its_button(viewer: Any, qtbot: Any) -> None:
    """Close as the desktop does: a spontaneous event."""

    class Spontaneous(QCloseEvent):
        def spontaneous(self) -> bool:
            return True

    main = viewer.window._qt_window
    QApplication.sendEvent(main, Spontaneous())
    qtbot.wait(100)


def test_the_title_names_the_project(own: Any, project: Project, qtbot: Any) -> None:
    viewer, panel = own
    assert viewer.window._qt_window.windowTitle() == "napari-dycon"
    open_case(panel, project, qtbot)
    name = panel.session.project.name
    assert viewer.window._qt_window.windowTitle() == f"{name} – napari-dycon"
    assert name in panel.data.title_label.toolTip()
    panel.session.close_project()
    assert viewer.window._qt_window.windowTitle() == "napari-dycon"


def test_keys_of_the_file_menu_open_and_create_projects(
    own: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer, _panel = own
    done: list[str] = []
    monkeypatch.setattr(NewProjectDialog, "exec", lambda _: done.append("new"))
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: done.append("open") or "")
    menu = viewer.window.file_menu
    for _ in range(2):  # napari fills it again
        menu.aboutToShow.emit()
        texts = [action.text().replace("&", "") for action in menu.actions()]
        assert texts[:2] == ["New Project…", "Open Scans or Project…"]
        assert texts.count("New Project…") == 1
        assert not any("Clipboard" in t and "Screenshot" not in t for t in texts)
    keys = [action.shortcut().toString() for action in menu.actions()]
    assert keys.count("Ctrl+N") == keys.count("Ctrl+O") == 1
    main = viewer.window._qt_window
    main.activateWindow()
    qtbot.wait(100)
    for key in (Qt.Key.Key_N, Qt.Key.Key_O):
        QTest.keyClick(main.windowHandle(), key, Qt.KeyboardModifier.ControlModifier)
        qtbot.wait(50)
    if not done:  # without a window manager, no window is active for shortcuts
        for action in menu.actions()[:2]:
            action.trigger()
    assert done == ["new", "open"]


def test_the_empty_canvas_says_what_the_program_does(
    own: Any, project: Project, qtbot: Any
) -> None:
    viewer, panel = own
    welcome = viewer.window._qt_viewer._welcome_widget

    def read() -> str:
        labels = welcome.findChildren(QLabel)
        return " ".join(label.text() for label in labels if not label.isHidden())

    assert "Open a folder of scans to begin." in read()
    assert "Ctrl+N New project" in read()
    viewer.theme = "light"
    welcome.refresh()
    for word in ("Clipboard", "Did you know", "Drag file"):
        assert word not in read()
    panel.session.open_project(project.path)
    qtbot.waitUntil(lambda: panel.session.project is not None, timeout=20_000)
    assert "Select a case in the list." in read()
    assert "Ctrl+O Open scans or a project" in read()


@pytest.mark.parametrize("by_button", [True, False])
def test_nothing_is_asked_when_nothing_is_lost(
    own: Any, project: Project, qtbot: Any, asked: list[str], by_button: bool
) -> None:
    viewer, panel = own
    open_case(panel, project, qtbot)
    panel.layers.find_layer("label").paint((8, 8, 8), 1)
    main = viewer.window._qt_window
    if by_button:
        close_by_its_button(viewer, qtbot)
    else:
        main.close(confirm_need=True)
    qtbot.waitUntil(lambda: not main.isVisible(), timeout=10_000)
    assert asked == []
    assert project.labels.read("scan-3")[8, 8, 8] == 1
    del viewer.window._qt_window  # as napari's own Window.close does


def test_a_running_task_is_asked_about(
    own: Any, project: Project, qtbot: Any, asked: list[str]
) -> None:
    viewer, panel = own
    open_case(panel, project, qtbot)
    main, activities = viewer.window._qt_window, panel.task_runner.activities
    export = Activity("Exporting", can_cancel=True)
    activities.add(Activity("Deleting a structure"))  # it is completed in any case
    activities.add(export)
    main.close(confirm_need=True)
    assert main.isVisible()
    close_by_its_button(viewer, qtbot)
    assert main.isVisible()
    activities.remove(export)
    assert len(asked) == 2
    assert all(text.startswith("Exporting: not finished yet") for text in asked)
    assert not export.is_canceled


def test_a_task_is_canceled_with_the_window(
    own: Any, project: Project, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer, panel = own
    open_case(panel, project, qtbot)
    main, done, may_go_on = viewer.window._qt_window, [], threading.Event()

    def export(on_progress: ItemProgressCallback) -> None:
        for number in range(100):
            on_progress(number, 100, "")
            done.append(number)
            assert may_go_on.wait(20)

    def choose(box: QMessageBox) -> None:
        box.show()
        next(b for b in box.buttons() if b.text() == "Cancel it and close").click()

    monkeypatch.setattr(QMessageBox, "exec", choose)
    panel.task_runner.submit_with_progress(
        "Exporting", export, lambda _: None, lambda _: None, on_cancel=lambda: None
    )
    qtbot.waitUntil(lambda: bool(panel.task_runner.activities.running), timeout=10_000)
    main.close(confirm_need=True)
    may_go_on.set()
    qtbot.waitUntil(lambda: not main.isVisible(), timeout=10_000)
    qtbot.waitUntil(lambda: panel.task_runner.is_idle, timeout=20_000)
    assert done == [0]
    del viewer.window._qt_window  # as napari's own Window.close does
