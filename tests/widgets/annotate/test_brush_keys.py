"""Keys of the brush: each lights its button, is listed, and leaves other layers alone."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from helpers.key_presses import press_key, press_key_in_window
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel

from napari_dycon.core.types import UNANNOTATED
from napari_dycon.widgets.layers.painting import choose_brush_width
from napari_dycon.widgets.window.shortcuts import ShortcutsDialog

KEYS = {
    "P": ("Paint", 1),
    "2": ("Paint", 1),
    "B": ("Background", 0),
    "E": ("Erase", UNANNOTATED),
    "1": ("Erase", UNANNOTATED),
}


@pytest.mark.gui
def test_each_key_lights_its_button_and_paints_its_value(example_panel: Any) -> None:
    viewer, panel = example_panel
    brush, label = panel.annotate.brush, panel.layers.find_layer("label")
    buttons = (brush.paint_button, brush.background_button, brush.erase_button)
    toolbar = panel.canvas_area.toolbar.tools.buttons
    for key, (text, value) in KEYS.items():
        label.mode = "pan_zoom"
        label.paint((8, 8, 8), 1)
        press_key(viewer, getattr(Qt.Key, f"Key_{key}"))
        assert [button.text() for button in buttons if button.isChecked()] == [text]
        assert [name for name, button in toolbar.items() if button.isChecked()] == ["paint"]
        label.paint((8, 8, 8), label.selected_label)
        assert panel.session.case.label[8, 8, 8] == value, key
    label.mode = "erase"  # in napari's own controls
    assert [name for name, button in toolbar.items() if button.isChecked()] == ["paint"]
    assert brush.background_button.isChecked()


@pytest.mark.gui
def test_keys_work_while_a_button_has_the_focus_and_not_in_3d(
    example_panel: Any, qtbot: Any
) -> None:
    viewer, panel = example_panel
    brush, label = panel.annotate.brush, panel.layers.find_layer("label")
    label.mode = "pan_zoom"
    brush.pick_button.setFocus()
    press_key_in_window(viewer, Qt.Key.Key_E)
    assert brush.erase_button.isChecked()
    label.mode = "pan_zoom"
    viewer.dims.ndisplay = 3
    qtbot.wait(200)
    press_key_in_window(viewer, Qt.Key.Key_P)
    assert str(label.mode) == "pan_zoom"
    viewer.dims.ndisplay = 2


@pytest.mark.gui
def test_keys_of_other_layers_stay_those_of_napari(example_panel: Any) -> None:
    viewer, panel = example_panel
    own = panel.layers.find_layer("label")
    own.mode, mm = "pan_zoom", panel.layers.brush_mm
    other = viewer.add_labels(np.zeros((20, 22, 18), np.uint8), name="other")
    viewer.layers.selection.active = other
    other.brush_size = 10
    press_key(viewer, Qt.Key.Key_E)
    assert str(other.mode) == "erase"
    press_key(viewer, Qt.Key.Key_BracketRight)
    assert other.brush_size == 11
    assert str(own.mode) == "pan_zoom"
    assert panel.layers.brush_mm == mm
    viewer.layers.remove(other)


@pytest.mark.gui
def test_brackets_change_the_brush_by_a_share_of_its_width(example_panel: Any) -> None:
    viewer, panel = example_panel
    layers, field = panel.layers, panel.annotate.brush.diameter
    layers.set_brush_mm(1.0)
    seen = [layers.brush_mm]
    for _ in range(14):
        press_key(viewer, Qt.Key.Key_BracketRight)
        seen.append(layers.brush_mm)
        assert field.value() == pytest.approx(layers.brush_mm, abs=0.05)
        assert layers.find_layer("label").brush_mm == pytest.approx(layers.brush_mm)
    assert all(later > earlier for earlier, later in itertools.pairwise(seen))
    assert seen[-1] > 50  # 14 presses instead of 50
    for expected in reversed(seen[:-1]):
        press_key(viewer, Qt.Key.Key_BracketLeft)
        assert layers.brush_mm == pytest.approx(expected)


@pytest.mark.parametrize(("width", "larger", "smaller"), [(1, 3, 1), (4, 5, 3), (13, 17, 11)])
def test_widths_of_the_brush(width: int, larger: int, smaller: int) -> None:
    assert choose_brush_width(width, 1, 300) == larger
    assert choose_brush_width(width, -1, 300) == smaller


def test_the_largest_brush_stays() -> None:
    width = 1
    for _ in range(100):
        width = choose_brush_width(width, 1, 300)
    assert 300 <= width <= 400
    assert choose_brush_width(width, 1, 300) == width


@pytest.mark.gui
def test_the_table_lists_the_keys_and_the_tooltips_agree(example_panel: Any) -> None:
    _, panel = example_panel
    dialog = ShortcutsDialog(panel, panel.shortcuts)
    texts = [label.text() for label in dialog.findChildren(QLabel)]
    for keys, text in (
        ("P or 2", "paint the structure"),
        ("B", "paint background"),
        ("E or 1", "erase: no longer annotated"),
    ):
        assert texts[texts.index(text) - 1] == f"<b>{keys}</b>"
    assert not any("eraser" in text for text in texts)
    dialog.close()
    brush = panel.annotate.brush
    for button, key in (
        (brush.paint_button, "P"),
        (brush.background_button, "B"),
        (brush.erase_button, "E"),
    ):
        assert f"({key})" in button.toolTip()
    # The difference is explained at both buttons, in the same words.
    explanation = brush.erase_button.toolTip().split("\n")[1]
    assert explanation in brush.background_button.toolTip()
    assert "Background:" in explanation
    assert "Erase:" in explanation
