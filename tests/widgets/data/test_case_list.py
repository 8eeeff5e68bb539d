"""The list of cases in the real window: opening, menu, columns, scrolling."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.dialogs import answer_dialog
from qtpy.QtCore import QEvent, QPoint, Qt, QUrl
from qtpy.QtGui import QContextMenuEvent, QDesktopServices, QFocusEvent, QKeyEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QMessageBox

from napari_dycon.core.types import UNANNOTATED
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.models import Status
from napari_dycon.project.store import Project
from napari_dycon.widgets.data.case_menu import CaseMenu
from napari_dycon.widgets.data.case_rows import NAME, STATUS
from napari_dycon.widgets.dialogs.case_details import CaseDetailsDialog
from napari_dycon.widgets.dialogs.name_dialog import NameDialog
from napari_dycon.widgets.dialogs.removed_cases import RemovedCasesDialog

pytestmark = pytest.mark.gui


@pytest.fixture
def opened(shared_window: Any, project: Project, qtbot: Any) -> Any:
    """Panel on the project, with scan-1 in view."""
    _, panel = shared_window
    open_project(panel, project, qtbot)
    panel.session.show_case("scan-1")
    qtbot.waitUntil(lambda: panel.session.case is not None, timeout=20_000)
    qtbot.wait(300)
    return panel


@pytest.fixture
def many_cases(scans: Path, tmp_path: Path) -> Project:
    """Project of 30 cases with long names that differ in the middle."""
    source = scans / "images" / "scan-0.nii.gz"
    (tmp_path / "many").mkdir()
    for number in range(30):
        name = f"hippocampus_{number:03d}_t1_mprage.nii.gz"
        shutil.copyfile(source, tmp_path / "many" / name)
    return create_project(tmp_path / "many-dycon", tmp_path / "many")


def open_project(panel: Any, project: Project, qtbot: Any) -> None:
    panel.session.open_project(project.path)
    qtbot.waitUntil(lambda: panel.session.project is not None, timeout=20_000)
    qtbot.wait(300)


def click(panel: Any, case_id: str, button: Any = Qt.MouseButton.LeftButton) -> None:
    rows = panel.data.case_list
    place = rows.visualItemRect(rows._items[case_id]).center()
    QTest.mouseClick(rows.viewport(), button, pos=place)


def make_menu(panel: Any, case_id: str) -> CaseMenu:
    case = panel.session.project.get_case(case_id)
    return CaseMenu(panel.data, panel.session, case, panel.data._on_case_chosen)


def test_only_a_left_click_and_enter_open_a_case(opened: Any, qtbot: Any) -> None:
    session, rows = opened.session, opened.data.case_list
    rows.setFocus()
    for key in (Qt.Key.Key_S, Qt.Key.Key_H, Qt.Key.Key_3, Qt.Key.Key_Down, Qt.Key.Key_End):
        QTest.keyClick(rows, key)
    click(opened, "scan-4", Qt.MouseButton.RightButton)
    click(opened, "scan-4", Qt.MouseButton.MiddleButton)
    qtbot.wait(500)
    assert session.case.id == "scan-1"
    assert rows.currentItem().case_id == "scan-5"  # moved by End
    QTest.keyClick(rows, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: session.case.id == "scan-5", timeout=20_000)
    click(opened, "scan-2")
    qtbot.waitUntil(lambda: session.case.id == "scan-2", timeout=20_000)
    QTest.keyClick(rows, Qt.Key.Key_Down)
    assert rows.currentItem().case_id == "scan-3"
    QApplication.sendEvent(rows, QFocusEvent(QEvent.Type.FocusOut))
    assert rows.currentItem().case_id == "scan-2"


def test_another_project_begins_with_annotating(
    opened: Any, many_cases: Project, qtbot: Any
) -> None:
    opened.tabs.setCurrentIndex(2)
    project = opened.session.project
    opened.session.open_project(project.path)  # again, as after the removal of a structure
    qtbot.wait(300)
    assert opened.tabs.currentIndex() == 2
    open_project(opened, many_cases, qtbot)
    assert opened.tabs.tabText(opened.tabs.currentIndex()) == "Annotate"


def test_the_name_of_the_open_case_is_bold(opened: Any, qtbot: Any) -> None:
    rows = opened.data.case_list

    def list_bold() -> list[str]:
        items = (rows.topLevelItem(row) for row in range(rows.topLevelItemCount()))
        return [item.case_id for item in items if item.font(NAME).bold()]

    QTest.keyClick(rows, Qt.Key.Key_Down)
    assert rows.currentItem().case_id == "scan-2"
    assert list_bold() == ["scan-1"]
    QTest.keyClick(rows, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: opened.session.case.id == "scan-2", timeout=20_000)
    assert list_bold() == ["scan-2"]


def test_the_menu_names_its_case(opened: Any) -> None:
    opened.session.project_editor.rename_case("scan-2", "R&D 2")
    menu = make_menu(opened, "scan-2")
    assert menu.actions()[0].text() == "R&&D 2"  # Qt shows one &
    assert not menu.actions()[0].isEnabled()
    menu.deleteLater()


def test_f2_renames_the_selected_case(opened: Any) -> None:
    rows = opened.data.case_list
    QTest.keyClick(rows, Qt.Key.Key_Down)

    def rename(dialog: NameDialog) -> None:
        assert dialog.field.text() == "scan-2"
        dialog.field.setText("Patient B")
        dialog.accept()

    answer_dialog(rename, NameDialog)
    QTest.keyClick(rows, Qt.Key.Key_F2)
    assert opened.session.project.get_case("scan-2").name == "Patient B"
    assert opened.session.case.id == "scan-1"


def test_letters_are_left_to_the_window(opened: Any) -> None:
    """A key that the list does not use is not taken by it."""
    rows = opened.data.case_list
    for key, text, is_taken in ((Qt.Key.Key_H, "h", False), (Qt.Key.Key_Down, "", True)):
        event = QKeyEvent(QEvent.Type.KeyPress, key, Qt.KeyboardModifier.NoModifier, text)
        rows.keyPressEvent(event)
        assert event.isAccepted() is is_taken


def test_names_are_readable_on_a_small_screen(
    shared_window: Any, many_cases: Project, qtbot: Any, save_screenshot: Callable[[Any, str], None]
) -> None:
    viewer, panel = shared_window  # of 1366 x 768
    open_project(panel, many_cases, qtbot)
    rows = panel.data.case_list
    name = many_cases.cases[0].id
    icon = rows.iconSize().width() + 14
    assert rows.columnWidth(NAME) - icon >= rows.fontMetrics().horizontalAdvance("hippocampus_000")
    assert rows.columnWidth(STATUS) < 50
    assert rows._items[name].toolTip(NAME) == name
    assert rows._items[name].toolTip(STATUS) == "Unlabeled"
    row_height = rows.visualItemRect(rows._items[name]).height()
    assert rows.viewport().height() / row_height >= 5
    rows.resize(700, rows.height())
    assert rows._items[name].text(STATUS) == "○ Unlabeled"
    many_cases.set_split(name, "validation")
    panel.session.project.reload()
    panel.session.cases_changed.emit()
    assert rows._items[name].text(STATUS) == "○ Unlabeled (validation)"
    save_screenshot(viewer, "long-names")


def is_in_view(rows: Any, case_id: str) -> bool:
    return bool(rows.viewport().rect().contains(rows.visualItemRect(rows._items[case_id])))


def test_the_active_case_is_in_view_also_after_sorting(
    shared_window: Any, many_cases: Project, qtbot: Any
) -> None:
    _, panel = shared_window
    open_project(panel, many_cases, qtbot)
    rows, session = panel.data.case_list, panel.session
    case_id = many_cases.cases[17].id
    session.show_case(case_id)
    qtbot.waitUntil(lambda: session.case is not None, timeout=20_000)
    qtbot.wait(200)
    assert is_in_view(rows, case_id)
    rows.sortByColumn(STATUS, Qt.SortOrder.AscendingOrder)
    rows.scrollToItem(rows._items[case_id])
    panel.data.filter_box.setCurrentText("To do")
    session.case.label[3:6, 3:6, 3:6] = 1
    session.set_case_status(case_id, Status.LABELED)  # moves to the end
    qtbot.wait(300)
    assert rows.topLevelItem(rows.topLevelItemCount() - 1).case_id == case_id
    assert not rows._items[case_id].isHidden()
    assert is_in_view(rows, case_id)
    rows.scrollToTop()  # the user looks elsewhere
    session.cases_changed.emit()
    qtbot.wait(200)
    assert not is_in_view(rows, case_id)


def test_the_menu_opens_without_opening_the_case(opened: Any, qtbot: Any) -> None:
    rows = opened.data.case_list
    place = rows.visualItemRect(rows._items["scan-4"]).center()
    rows.customContextMenuRequested.emit(place)
    qtbot.waitUntil(lambda: opened.data.findChild(CaseMenu) is not None, timeout=5_000)
    menu = opened.data.findChild(CaseMenu)
    assert menu.case.id == "scan-4"
    assert [action.text() for action in menu.actions() if action.text()] == [
        "scan-4",
        "Open",
        "Use for validation only",
        "Rename…",
        "Remove from project…",
        "Show in folder",
        "Details…",
    ]
    menu.close()
    menu.deleteLater()
    qtbot.waitUntil(lambda: opened.data.findChild(CaseMenu) is None, timeout=5_000)
    event = QContextMenuEvent(QContextMenuEvent.Reason.Keyboard, QPoint(1, 1))
    QApplication.sendEvent(rows, event)  # of the selected row
    assert opened.data.findChild(CaseMenu).case.id == "scan-1"
    opened.data.findChild(CaseMenu).close()
    rows.customContextMenuRequested.emit(QPoint(5, rows.height() - 5))  # below the rows
    assert opened.session.case.id == "scan-1"
    menu = make_menu(opened, "scan-4")
    menu.split_action.trigger()
    assert opened.session.project.get_case("scan-4").split == "validation"
    assert make_menu(opened, "scan-4").split_action.text() == "Use for training"
    menu.open_action.trigger()
    qtbot.waitUntil(lambda: opened.session.case.id == "scan-4", timeout=20_000)


def test_a_case_is_renamed_in_the_window(opened: Any, qtbot: Any) -> None:
    seen: list[str] = []

    def answer(dialog: NameDialog) -> None:
        dialog.field.setText("SCAN-0")
        seen.append(dialog.error_label.text())
        assert not dialog.buttons.button(dialog.buttons.StandardButton.Ok).isEnabled()
        dialog.field.setText("first patient")
        dialog.accept()

    answer_dialog(answer, NameDialog)
    make_menu(opened, "scan-1").rename_action.trigger()
    qtbot.waitUntil(lambda: opened.session.project.get_case("scan-1").name != "", timeout=5_000)
    assert seen == ['There is already a case called "scan-0".']
    item = opened.data.case_list._items["scan-1"]
    assert item.text(NAME) == "first patient"
    assert "scan-1" in item.toolTip(NAME)
    assert opened.session.case.id == "scan-1"
    click(opened, "scan-1")
    opened.layers.find_layer("label").data[0, 0, 0] = 1
    opened.session.flush()
    assert opened.session.project.labels.read("scan-1")[0, 0, 0] == 1


def test_a_case_is_removed_after_a_question_and_restored(opened: Any, qtbot: Any) -> None:
    session: Any = opened.session
    opened.layers.find_layer("label").data[0, 0, :3] = 1
    expected = session.case.label.copy()
    said: list[str] = []

    def cancel(box: Any) -> None:
        said.append(f"{box.text()} {box.informativeText()}")
        box.button(QMessageBox.StandardButton.Cancel).click()

    answer_dialog(cancel, QMessageBox)
    make_menu(opened, "scan-1").remove_action.trigger()
    assert "Remove scan-1 from this project?" in said[0]
    assert "label and predictions are kept" in said[0]
    assert len(session.project.cases) == 6

    answer_dialog(lambda box: box.buttons()[0].click(), QMessageBox)
    make_menu(opened, "scan-1").remove_action.trigger()
    qtbot.waitUntil(lambda: len(session.project.cases) == 5, timeout=20_000)
    qtbot.waitUntil(lambda: "scan-1" not in opened.data.case_list._items, timeout=20_000)
    assert not session.case
    assert opened.layers.find_layer("label") is None

    answer_dialog(lambda dialog: dialog.accept(), RemovedCasesDialog)
    opened.data.add_button.menu().actions()[-1].trigger()
    qtbot.waitUntil(lambda: "scan-1" in opened.data.case_list._items, timeout=20_000)
    session.show_case("scan-1")
    qtbot.waitUntil(lambda: session.case is not None, timeout=20_000)
    assert np.array_equal(session.case.label, expected)
    assert (session.case.label != UNANNOTATED).any()


def test_removal_is_unavailable_in_a_read_only_project(
    shared_window: Any, project: Project, qtbot: Any
) -> None:
    _, panel = shared_window
    panel.session.open_project(project.path, read_only=True)
    qtbot.waitUntil(lambda: panel.session.project is not None, timeout=20_000)
    menu = make_menu(panel, "scan-1")
    for action in (menu.remove_action, menu.rename_action, menu.split_action):
        assert not action.isEnabled()
        assert "viewing only" in action.toolTip()
    assert menu.details_action.isEnabled()


def test_folder_and_details_are_shown(
    opened: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch, screenshot_folder: Path
) -> None:
    shown: list[QUrl] = []
    monkeypatch.setattr(QDesktopServices, "openUrl", shown.append)
    menu = make_menu(opened, "scan-1")
    menu.folder_action.trigger()
    folder = opened.session.project.image_paths("scan-1")[0].parent
    assert [Path(url.toLocalFile()) for url in shown] == [folder]
    menu.details_action.trigger()
    qtbot.waitUntil(lambda: opened.data.findChild(CaseDetailsDialog) is not None, timeout=20_000)
    dialog = opened.data.findChild(CaseDetailsDialog)
    assert "Orientation" in dialog.text
    dialog.grab().save(str(screenshot_folder / "details.png"))
    dialog.close()
