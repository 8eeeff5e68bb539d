"""Keys act in the whole window, on every keyboard layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.key_presses import press_key, press_key_in_window
from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QAbstractItemView, QComboBox

from napari_dycon.widgets.window.key_layouts import KeyPress, translate_key

NONE = Qt.KeyboardModifier.NoModifier
SHIFT, CONTROL = Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.ControlModifier
ALT_GR = Qt.KeyboardModifier.GroupSwitchModifier
X11 = {"1": 10, "2": 11, "8": 17, "[": 34, "]": 35, "A": 38, "S": 39, "N": 57, "Z": 52, ",": 59}


def make_event(key: Any, modifiers: Any = NONE, scan_code: int = 0, virtual_key: int = 0) -> Any:
    return QKeyEvent(QEvent.Type.KeyPress, int(key), modifiers, scan_code, virtual_key, 0)


@pytest.mark.parametrize(
    ("key", "modifiers", "position", "expected"),
    [
        # US: what is printed
        (Qt.Key.Key_N, NONE, "N", "N"),
        (Qt.Key.Key_1, CONTROL, "1", "Control-1"),
        (Qt.Key.Key_N, SHIFT, "N", "Shift-N"),
        # German and Swiss: Z is where a US keyboard has Y
        (Qt.Key.Key_Z, CONTROL, None, "Control-Z"),
        (Qt.Key.Key_Udiaeresis, NONE, "[", "BracketLeft"),
        (Qt.Key.Key_Plus, NONE, "]", "BracketRight"),
        (Qt.Key.Key_BracketLeft, ALT_GR, "8", "BracketLeft"),
        (Qt.Key.Key_Egrave, NONE, "[", "BracketLeft"),  # Swiss French
        # French: A is where a US keyboard has Q; digits need Shift
        (Qt.Key.Key_A, NONE, None, "A"),
        (Qt.Key.Key_Ampersand, NONE, "1", "1"),
        (Qt.Key.Key_Eacute, CONTROL, "2", "Control-2"),
        (Qt.Key.Key_1, SHIFT, "1", "1"),
        (Qt.Key.Key_2, SHIFT | CONTROL, "2", "Control-2"),
        # Russian and Greek: letters by position
        (0x0422, NONE, "N", "N"),  # Т
        (0x042F, CONTROL, "Z", "Control-Z"),  # Я
        (0x0424, SHIFT, "A", "Shift-A"),
        (0x03A3, NONE, "S", "S"),
        # Punctuation is no letter
        (Qt.Key.Key_Comma, NONE, ",", "Comma"),
        (Qt.Key.Key_F1, NONE, None, "F1"),
    ],
)
def test_keys_of_all_layouts_are_understood(
    key: Any, modifiers: Any, position: str | None, expected: str
) -> None:
    code = X11[position] if position else 0
    assert translate_key(make_event(key, modifiers, code), "linux") == KeyPress.parse(expected)
    windows_code = code - 8 if position else 0
    event = make_event(key, modifiers, windows_code)
    assert translate_key(event, "win32") == KeyPress.parse(expected)


def test_macos_tells_positions_by_virtual_keys() -> None:
    assert translate_key(make_event(0x0422, NONE, 0, 45), "darwin") == KeyPress.parse("N")
    french = make_event(Qt.Key.Key_Ampersand, CONTROL, 0, 18)
    assert translate_key(french, "darwin") == KeyPress.parse("Control-1")


@pytest.mark.gui
def test_letters_never_open_another_case(example_panel: Any, qtbot: Any) -> None:
    viewer, panel = example_panel
    views = [item for item in panel.findChildren(QAbstractItemView) if item.isVisible()]
    assert views
    for widget in views:
        widget.setFocus()
        for key in (Qt.Key.Key_H, Qt.Key.Key_S, Qt.Key.Key_H, Qt.Key.Key_4):
            press_key_in_window(viewer, key)
        qtbot.wait(50)
        assert panel.session.case.id == "scan-3"
    for choice in panel.findChildren(QComboBox):
        before = choice.currentText()
        choice.setFocus()
        press_key_in_window(viewer, Qt.Key.Key_L)
        assert choice.currentText() == before


@pytest.mark.gui
def test_shortcuts_and_keys_of_napari_act_while_the_panel_has_the_focus(
    example_panel: Any, qtbot: Any
) -> None:
    viewer, panel = example_panel
    label = panel.layers.find_layer("label")
    panel.annotate.completion.slice_button.setFocus()
    uncertainty = panel.layers.find_layer("uncertainty")
    assert uncertainty.visible
    press_key_in_window(viewer, Qt.Key.Key_H)
    assert not uncertainty.visible
    press_key_in_window(viewer, Qt.Key.Key_P)
    assert str(label.mode) == "paint"
    size = label.brush_size
    press_key_in_window(viewer, Qt.Key.Key_BracketRight)
    assert label.brush_size > size
    before = panel.session.case.label.copy()
    label.data_setitem(tuple(np.array([[3], [3], [3]])), 1)
    press_key_in_window(viewer, Qt.Key.Key_Z, CONTROL)
    np.testing.assert_array_equal(panel.session.case.label, before)
    index = panel.layers.slice_index
    press_key_in_window(viewer, Qt.Key.Key_Right)
    assert panel.layers.slice_index == index + 1


@pytest.mark.gui
def test_fields_for_numbers_keep_their_keys(example_panel: Any) -> None:
    viewer, panel = example_panel
    field = panel.annotate.brush.diameter
    field.setFocus()
    field.selectAll()
    shown = panel.layers.find_layer("uncertainty").visible
    for key in (Qt.Key.Key_1, Qt.Key.Key_2, Qt.Key.Key_H):
        press_key_in_window(viewer, key)
    assert field.text().startswith("12")
    assert panel.layers.find_layer("uncertainty").visible == shown
    index = panel.layers.slice_index
    press_key_in_window(viewer, Qt.Key.Key_Left)
    assert panel.layers.slice_index == index


@pytest.mark.gui
def test_a_side_view_takes_the_keys_once_it_was_used(example_panel: Any, qtbot: Any) -> None:
    viewer, panel = example_panel
    views = panel.canvas_area.views
    views.show_side_views(True)
    qtbot.wait(300)
    sagittal = views.views[2]
    views.activate(sagittal)
    before = viewer.dims.point
    press_key(viewer, Qt.Key.Key_Right)
    spacing = panel.session.case.image.spacing_mm[2]
    assert viewer.dims.point == pytest.approx((before[0], before[1], before[2] + spacing))
