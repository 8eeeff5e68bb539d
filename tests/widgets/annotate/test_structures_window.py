"""Structures, completion and the controls of the brush in the real window."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.dialogs import answer_dialog
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QColorDialog, QMessageBox

from napari_dycon.core.types import UNANNOTATED
from napari_dycon.project.store import Project
from napari_dycon.widgets.annotate.completion import find_unannotated_slices, format_slices
from napari_dycon.widgets.annotate.structure_list import VOLUME_ROLE
from napari_dycon.widgets.dialogs.name_dialog import NameDialog

pytestmark = pytest.mark.gui
Window = Callable[[], Any]


@pytest.fixture
def opened(shared_window: Any, project: Project, qtbot: Any) -> Any:
    """Window on scan-0 of a project with two structures."""
    return open_two_structures(shared_window, project, qtbot)


@pytest.fixture
def own_window(window: Window, project: Project, qtbot: Any) -> Any:
    """A new window like ``opened``, in which the user has not folded anything."""
    return open_two_structures(window(), project, qtbot)


def open_two_structures(shown: Any, project: Project, qtbot: Any) -> Any:
    viewer, panel = shown
    project.add_class("rim")
    panel.session.open_project(project.path)
    qtbot.waitUntil(lambda: panel.session.project is not None, timeout=20_000)
    panel.session.show_case("scan-0")
    qtbot.waitUntil(lambda: panel.session.case is not None, timeout=20_000)
    qtbot.wait(300)
    return viewer, panel


def list_volumes(panel: Any) -> list[str]:
    rows = panel.annotate.structures.list
    return [rows.item(row).data(VOLUME_ROLE) for row in range(rows.count())]


def test_a_name_that_exists_is_refused_in_the_dialog(opened: Any) -> None:
    _, panel = opened
    structures, seen = panel.annotate.structures, []

    def answer(dialog: NameDialog) -> None:
        ok = dialog.buttons.button(dialog.buttons.StandardButton.Ok)
        for name in ("", " RIM ", "shell"):
            dialog.field.setText(name)
            seen.append((dialog.error_label.text().strip(), ok.isEnabled()))
        dialog.accept()

    answer_dialog(answer, NameDialog)
    structures.add_button.click()
    assert seen == [
        ("Enter a name.", False),
        ('There is already a structure called "rim".', False),
        ("", True),
    ]
    assert [info.name for info in panel.session.project.classes] == ["box", "rim", "shell"]

    def rename(dialog: NameDialog) -> None:
        assert dialog.field.text() == "shell"
        dialog.field.setText("wall")
        dialog.accept()

    assert structures.value == 3  # a new structure is the one to paint
    answer_dialog(rename, NameDialog)
    structures.rename_action.trigger()
    assert structures.list.item(2).text() == "3  wall"


def test_f2_and_double_clicks_change_name_and_color(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qtpy.QtGui import QColor

    _, panel = opened
    structures, project = panel.annotate.structures, panel.session.project
    rows = structures.list
    area = rows.visualItemRect(rows.item(1))

    def double_click(x: int) -> None:
        point = QPoint(area.left() + x, area.center().y())
        QTest.mouseClick(rows.viewport(), Qt.MouseButton.LeftButton, pos=point)
        QTest.mouseDClick(rows.viewport(), Qt.MouseButton.LeftButton, pos=point)

    def rename_to(name: str) -> Callable[[NameDialog], None]:
        def rename(dialog: NameDialog) -> None:
            dialog.field.setText(name)
            dialog.accept()

        return rename

    answer_dialog(rename_to("edge"), NameDialog)
    double_click(40)
    assert project.classes[1].name == "edge"
    answer_dialog(rename_to("wall"), NameDialog)
    QTest.keyClick(rows, Qt.Key.Key_F2)
    assert project.classes[1].name == "wall"
    monkeypatch.setattr(QColorDialog, "getColor", lambda *_: QColor("#123456"))
    double_click(8)
    assert project.classes[1].color == "#123456"


def test_a_color_is_changed(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from qtpy.QtGui import QColor

    viewer, panel = opened
    monkeypatch.setattr(QColorDialog, "getColor", lambda *_: QColor("#123456"))
    panel.annotate.structures.choose_number(2)
    panel.annotate.structures.color_action.trigger()
    assert panel.session.project.classes[1].color == "#123456"
    color = viewer.layers["label"].colormap.color_dict[2]
    assert np.allclose(color[:3], [0x12 / 255, 0x34 / 255, 0x56 / 255], atol=0.01)


def test_volumes_follow_the_brush(opened: Any, qtbot: Any) -> None:
    viewer, panel = opened
    case = panel.session.case
    voxel_ml = np.prod(case.image.spacing_mm) / 1000
    qtbot.waitUntil(lambda: list_volumes(panel) == [f"{512 * voxel_ml:.2f} ml", "0 ml"])
    label = viewer.layers["label"]
    label.brush_size = 6
    label.paint((1, 4, 4), 2)
    n_painted = int((case.label == 2).sum())
    assert n_painted > 5
    qtbot.waitUntil(
        lambda: list_volumes(panel)[1] == f"{n_painted * voxel_ml:.2f} ml", timeout=10_000
    )
    panel.session.close_project()
    assert panel.annotate.structures.list.count() == 0


def test_a_structure_is_deleted_after_a_question(opened: Any, qtbot: Any) -> None:
    viewer, panel = opened
    session = panel.session
    viewer.layers["label"].paint((1, 4, 4), 2)
    session.flush()
    said: list[str] = []

    def cancel(box: Any) -> None:
        said.append(f"{box.text()} {box.informativeText()}")
        box.button(QMessageBox.StandardButton.Cancel).click()

    panel.annotate.structures.choose_number(2)
    answer_dialog(cancel, QMessageBox)
    panel.annotate.structures.delete_action.trigger()
    qtbot.waitUntil(lambda: bool(said), timeout=20_000)
    assert 'Delete the structure "rim"?' in said[0]
    assert "1 label contains it" in said[0]
    assert len(session.project.classes) == 2
    qtbot.wait(200)

    answer_dialog(lambda box: box.buttons()[0].click(), QMessageBox)
    panel.annotate.structures.delete_action.trigger()
    qtbot.waitUntil(lambda: len(session.project.classes) == 1, timeout=20_000)
    qtbot.waitUntil(lambda: session.case is not None, timeout=20_000)
    assert not (session.case.label == 2).any()
    label = viewer.layers["label"]
    label.undo()  # nothing to undo: the deleted structure does not come back
    assert not (session.case.label == 2).any()
    label.paint((2, 4, 4), 1)
    session.flush()
    assert session.project.labels.read("scan-0")[2, 4, 4] == 1
    assert panel.annotate.structures.value == 1


def test_slices_are_counted_from_one(opened: Any) -> None:
    _, panel = opened
    panel.session.case.label[:] = UNANNOTATED
    panel.layers.go_to_slice(7, 0)
    panel.annotate.completion.slice_button.click()
    assert (panel.session.case.label[7] == 0).all()
    assert panel.message_label.text() == "Axial slice 8 marked complete."
    panel.session.case.label[3, 4:6, 4:6] = 1
    panel.annotate.completion.scan_button.click()
    assert panel.session.project.get_case("scan-0").status == "labeled"
    text = panel.message_label.text()
    assert "Scan marked complete. 16 slices were not annotated: background now." in text


def test_ranges_of_slices() -> None:
    label = np.full((6, 4, 4), UNANNOTATED, np.uint8)
    assert find_unannotated_slices(label, 0) == []  # nothing is annotated at all
    label[2, 1, 1] = 1
    assert find_unannotated_slices(label, 0) == [0, 1, 3, 4, 5]
    assert find_unannotated_slices(label, 2) == [0, 2, 3]
    assert format_slices([4]) == "Slice 5"
    assert format_slices([0, 1, 3, 4, 5]) == "Slices 1–2 and 4–6"
    assert format_slices(list(range(0, 20, 2))) == "10 slices"


def test_the_limits_of_the_brush_end_with_the_case(opened: Any, qtbot: Any) -> None:
    viewer, panel = opened
    session, brush = panel.session, panel.annotate.brush
    session.annotation.set_paint_range((-5.0, -4.0))
    assert brush.limit_checkbox.isChecked()
    label = viewer.layers["label"]
    before = session.case.label.copy()
    label.paint((1, 4, 4), 1)
    assert np.array_equal(session.case.label, before)
    qtbot.waitUntil(lambda: "Nothing painted" in panel.message_label.text(), timeout=5_000)
    assert "between -5 and -4" in panel.message_label.text()
    session.show_case("scan-4")
    qtbot.waitUntil(lambda: session.case.id == "scan-4", timeout=20_000)
    assert session.annotation.paint_range is None
    assert not brush.limit_checkbox.isChecked()
    session.message.emit("info", "")
    viewer.layers["label"].paint((1, 4, 4), 1)
    assert (session.case.label == 1).any()
    qtbot.wait(700)
    assert panel.message_label.text() == ""


def test_the_limits_of_the_brush_are_kept_for_ct(
    opened: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_dycon.application.active_case import ActiveCase

    _, panel = opened
    monkeypatch.setattr(ActiveCase, "is_ct", property(lambda _: True))
    for case_id in ("scan-2", "scan-3"):
        panel.session.show_case(case_id)
        qtbot.waitUntil(lambda case_id=case_id: panel.session.case.id == case_id, timeout=20_000)
        if case_id == "scan-2":
            panel.session.annotation.set_paint_range((30.0, 60.0))
    assert panel.session.annotation.paint_range == (30.0, 60.0)


def test_undo_and_redo_have_buttons(opened: Any) -> None:
    viewer, panel = opened
    viewer.layers["label"].paint((1, 4, 4), 2)
    panel.annotate.brush.undo_button.click()
    assert not (panel.session.case.label == 2).any()
    panel.annotate.brush.redo_button.click()
    assert (panel.session.case.label == 2).any()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_everything_for_annotating_is_visible_on_a_small_screen(
    opened: Any, qtbot: Any, theme: str, save_screenshot: Callable[[Any, str], None]
) -> None:
    viewer, panel = opened
    viewer.theme = theme
    viewer.window._qt_window.resize(1366, 768)
    qtbot.wait(300)
    section = panel.annotate
    viewport = section.parentWidget()
    for widget in (
        section.structures.list,
        section.structures.edit_button,
        section.brush.erase_button,
        section.brush.undo_button,
        section.brush.pick_button,
        section.completion.scan_button,
        section.completion.reviewed_button,
        section.unannotated_checkbox,
    ):
        area = widget.rect().translated(widget.mapTo(viewport, widget.rect().topLeft()))
        assert viewport.rect().contains(area), widget
    button, window = section.completion.slice_button, viewer.window._qt_window
    area = button.rect().translated(button.mapTo(window, button.rect().topLeft()))
    assert button.isVisible()
    assert window.rect().contains(area)  # at the canvas
    save_screenshot(viewer, f"annotate-{theme}")


def test_tools_are_folded_in_a_low_window_until_the_user_decides(
    own_window: Any, qtbot: Any
) -> None:
    viewer, panel = own_window
    window, section = viewer.window._qt_window, panel.annotate
    window.resize(1366, 768)
    qtbot.waitUntil(lambda: not section.collapsible.isExpanded(), timeout=5_000)
    section.collapsible.expand(animate=False)  # by the user
    window.resize(1366, 740)
    qtbot.wait(300)
    assert section.collapsible.isExpanded()


def test_tools_are_unfolded_again_in_a_high_window(own_window: Any, qtbot: Any) -> None:
    viewer, panel = own_window
    section = panel.annotate
    viewer.window._qt_window.resize(1366, 768)
    qtbot.waitUntil(lambda: not section.collapsible.isExpanded(), timeout=5_000)
    viewport = section.parentWidget()
    panel.tabs.setMinimumHeight(700)  # as in a higher window
    qtbot.waitUntil(lambda: viewport.height() > 600, timeout=5_000)
    assert section.collapsible.isExpanded()
    assert section.tools.keep_largest_button.isVisible()


def test_nothing_moves_when_a_region_or_a_proposal_appears(opened: Any, qtbot: Any) -> None:
    _, panel = opened
    tools, session = panel.annotate.tools, panel.session
    panel.annotate.collapsible.expand(animate=False)
    qtbot.wait(300)
    watched = (tools.smooth_button, tools.accept_button, tools.fill_holes_button)
    before = [widget.mapTo(tools, widget.rect().topLeft()) for widget in watched]
    session.annotation.set_roi((slice(2, 9), slice(2, 9), slice(2, 9)))
    assert tools.roi_controls.first_slice.value() == 3
    session.case.label[:] = UNANNOTATED
    session.case.label[9, 8:12, 8:12] = 1
    session.case.label[9, :2] = 0
    session.annotation.set_roi(None)
    session.annotation.grow()
    qtbot.waitUntil(lambda: session.annotation.has_proposal, timeout=60_000)
    qtbot.wait(200)
    assert [widget.mapTo(tools, widget.rect().topLeft()) for widget in watched] == before
    assert tools.accept_button.isEnabled()
    session.annotation.discard_proposal()
    assert tools.accept_button.isVisibleTo(tools)
    assert not tools.accept_button.isEnabled()


def test_letters_do_not_select_a_structure(opened: Any) -> None:
    _, panel = opened
    rows = panel.annotate.structures.list
    rows.setFocus()
    rows.setCurrentRow(0)
    QTest.keyClick(rows, Qt.Key.Key_2)
    QTest.keyClick(rows, Qt.Key.Key_R)
    assert rows.currentRow() == 0


def test_the_name_dialog_can_be_seen(opened: Any, screenshot_folder: Path) -> None:
    _, panel = opened
    dialog = NameDialog(panel, "Add structure", "Name", lambda name: f'"{name}" exists', text="a")
    dialog.show()
    dialog.grab().save(str(screenshot_folder / "name.png"))
    dialog.close()
    dialog.deleteLater()
