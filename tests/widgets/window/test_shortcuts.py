"""Keyboard shortcuts and commands of the window."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.key_presses import press_key
from qtpy.QtCore import QRect, Qt
from qtpy.QtWidgets import QDialogButtonBox, QScrollArea, QToolBar

from napari_dycon.widgets.window.shortcuts import ShortcutsDialog

pytestmark = pytest.mark.gui

# In names of actions of other layers than labels.
# Keys of tools whose meaning in napari would not fit: its eraser paints background.
REPLACED = ("P", "2", "B", "E", "1", "[", "]")
ELSEWHERE = ("points", "shape", "vertex", "plane", "_add_", "in_slice", "direct", "select_mode")


def has_proposal(layers: Any) -> bool:
    layer = layers.find_layer("proposal")
    return layer is not None and layer.visible


def test_shortcuts_do_not_collide_with_those_of_napari(example_panel: Any) -> None:
    from napari.utils.shortcuts import default_shortcuts

    _viewer, panel = example_panel
    active = panel.layers.find_layer("label")
    theirs = set()
    for name, keys in default_shortcuts.items():
        kind = name.split(":")[1]
        if any(word in kind for word in ELSEWHERE):
            continue  # of other layers than labels
        if "increment_dims" in kind:
            continue  # the arrows mean the same
        theirs |= {str(key) for key in keys}
    layer_keys = {str(key) for key in type(active).class_keymap} | set(map(str, theirs))
    for key in panel.shortcuts:
        if key.key == "Escape" or key.key in REPLACED:
            continue  # left to napari unless a command waits for a click, or the label is active
        wanted = key.key.replace("-", "+").replace("Control", "Ctrl")
        assert wanted not in layer_keys, key.key
        assert wanted.replace("Ctrl", "Control") not in layer_keys, key.key


def test_shortcuts_fill_copy_grow_and_undo(example_panel: Any, qtbot: Any) -> None:
    viewer, panel = example_panel
    session, layers = panel.session, panel.layers
    label = layers.find_layer("label")
    view = session.case
    label.data_setitem(np.nonzero(make_box(view.label.shape, 4)), 1)
    label.data_setitem(np.nonzero(make_box(view.label.shape, 12)), 1)
    before = view.label.copy()
    press_key(viewer, Qt.Key.Key_I)
    qtbot.waitUntil(lambda: (view.label[8] == 1).sum() > 40, timeout=20_000)
    label.undo()  # one step
    assert np.array_equal(view.label, before)

    layers.go_to_slice(5, 0)
    press_key(viewer, Qt.Key.Key_W)
    qtbot.waitUntil(lambda: (view.label[5] == 1).any(), timeout=20_000)
    assert np.array_equal(view.label[5], view.label[4])
    layers.go_to_slice(11, 0)
    press_key(viewer, Qt.Key.Key_W, Qt.KeyboardModifier.ShiftModifier)
    qtbot.waitUntil(lambda: (view.label[11] == 1).any(), timeout=20_000)

    before = view.label.copy()
    press_key(viewer, Qt.Key.Key_G)
    qtbot.waitUntil(lambda: has_proposal(layers), timeout=20_000)
    assert panel.annotate.tools.accept_button.isVisibleTo(panel)
    assert np.array_equal(view.label, before)
    press_key(viewer, Qt.Key.Key_D)
    assert not has_proposal(layers)
    press_key(viewer, Qt.Key.Key_G)
    qtbot.waitUntil(lambda: has_proposal(layers), timeout=20_000)
    press_key(viewer, Qt.Key.Key_A)
    assert not has_proposal(layers)
    assert (view.label == 1).sum() > (before == 1).sum()
    label.undo()
    assert np.array_equal(view.label, before)


def make_box(shape: tuple[int, ...], number: int) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[number, 5:15, 5:13] = True
    return mask


def test_number_keys_select_structures_and_the_overview_lists_all_keys(
    example_panel: Any, qtbot: Any
) -> None:
    viewer, panel = example_panel
    panel.session.project.add_class("second")
    panel.session.cases_changed.emit()
    press_key(viewer, Qt.Key.Key_2, Qt.KeyboardModifier.ControlModifier)
    assert panel.layers.find_layer("label").selected_label == 2
    assert panel.annotate.structures.value == 2
    card = ShortcutsDialog(panel, panel.shortcuts)
    qtbot.addWidget(card)
    card.show()
    qtbot.wait(100)
    assert card.height() < 700
    scroll_area = card.findChild(QScrollArea)
    assert scroll_area.verticalScrollBar().maximum() == 0
    assert scroll_area.horizontalScrollBar().maximum() == 0


def test_the_overview_of_keys_fits_on_a_small_screen(
    opened_panel: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, panel = opened_panel
    screen = SimpleNamespace(availableGeometry=lambda: QRect(0, 0, 960, 540))
    monkeypatch.setattr(panel, "screen", lambda: screen)
    card = ShortcutsDialog(panel, panel.shortcuts)
    qtbot.addWidget(card)
    card.show()
    qtbot.wait(100)
    assert card.width() <= 960
    assert card.height() <= 500
    button = card.findChild(QDialogButtonBox).buttons()[0]
    assert card.rect().contains(button.mapTo(card, button.rect().bottomRight()))
    assert card.findChild(QScrollArea).verticalScrollBar().maximum() > 0


def test_shortcuts_strip_and_toolbar_are_removed_with_the_panel(own_panel: Any, qtbot: Any) -> None:
    viewer, panel = own_panel
    main_window = viewer.window._qt_window
    assert panel.strip.isVisible()
    assert panel.canvas_area.toolbar in main_window.findChildren(QToolBar)
    visits: list[int] = []
    panel.session.hotspot_visited.connect(visits.append)
    press_key(viewer, Qt.Key.Key_N)
    assert len(visits) == 1
    strip, toolbar = panel.strip, panel.canvas_area.toolbar
    panel.release()
    press_key(viewer, Qt.Key.Key_N)
    assert len(visits) == 1
    assert not strip.isVisible()
    assert toolbar not in main_window.findChildren(QToolBar)
    assert viewer.window._qt_viewer.dims.isVisible()


def test_every_command_is_in_the_palette_and_works(example_panel: Any, qtbot: Any) -> None:
    from napari._app_model import get_app_model

    _viewer, panel = example_panel
    app = get_app_model()
    known = {name for name, _ in app.commands if name.startswith("napari-dycon.")}
    assert {"napari-dycon.fill_between", "napari-dycon.next_place"} <= known
    app.commands.execute_command("napari-dycon.next_place").result()
    assert panel.review.hotspot_label.text().startswith("Region 1 of 2")
    app.commands.execute_command("napari-dycon.accept_slice").result()
    index = panel.layers.slice_index
    assert np.array_equal(panel.session.case.label[index], panel.session.case.prediction[index])
    app.commands.execute_command("napari-dycon.accept_grown").result()  # tells, raises nothing
    assert "no proposal" in panel.message_label.text()
