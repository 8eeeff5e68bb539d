"""A click that a command waits for, a panel that floats again, names and grids that change."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDockWidget

from napari_dycon.project.store import Project

pytestmark = pytest.mark.gui


def test_a_tool_that_is_chosen_ends_waiting_for_a_click(opened_panel: Any) -> None:
    _, panel = opened_panel
    layers, label = panel.layers, panel.layers.find_layer("label")
    panel.annotate.brush.pick_button.click()
    assert layers.is_waiting_for_click
    assert panel.message_label.text()
    panel.annotate.brush.erase_button.click()
    assert not layers.is_waiting_for_click
    assert str(label.mode) == "paint"
    assert panel.message_label.text() == ""
    panel.annotate.brush.pick_button.click()  # and again
    assert layers.cancel_click()
    assert str(label.mode) == "paint"


def test_keys_act_in_a_panel_that_floats_again(opened_panel: Any, qtbot: Any) -> None:
    _, panel = opened_panel
    dock = panel.parentWidget()
    while not isinstance(dock, QDockWidget):
        dock = dock.parentWidget()
    try:
        for are_hidden in (True, False):
            dock.setFloating(True)
            qtbot.wait(100)
            panel.setFocus()
            QTest.keyClick(dock.windowHandle(), Qt.Key.Key_Q)
            assert panel.layers.are_overlays_hidden is are_hidden
            dock.setFloating(False)
            qtbot.wait(100)
    finally:
        dock.setFloating(False)


def test_the_canvas_has_the_new_name_of_a_case(opened_panel: Any, qtbot: Any) -> None:
    _, panel = opened_panel
    annotations = panel.canvas_area.views.main_view.annotations
    panel.session.project_editor.rename_case("scan-3", "Baseline")
    qtbot.waitUntil(lambda: annotations.content.name == "Baseline", timeout=5_000)


def test_the_marker_of_a_region_follows_the_grid_of_the_case(opened_panel: Any, qtbot: Any) -> None:
    viewer, panel = opened_panel
    panel.review.next_uncertain_region()
    case, marker = panel.session.case, panel.layers.find_layer("marker")
    spacing_mm = tuple(s / 2 for s in case.image.spacing_mm)
    affine = case.image.affine @ np.diag([0.5, 0.5, 0.5, 1.0])
    image = dataclasses.replace(case.image, affine=affine)
    assert image.spacing_mm == pytest.approx(spacing_mm)
    finer = dataclasses.replace(case, id="finer", image=image, label=case.label.copy())
    panel.session.flush()
    panel.session.state.case = finer
    panel.session.case_shown.emit(finer)
    overlays = [panel.layers.find_layer(role) for role in ("uncertainty", "disagreement")]
    qtbot.waitUntil(lambda: all(np.allclose(layer.scale, spacing_mm) for layer in overlays))
    assert tuple(marker.scale) == pytest.approx(spacing_mm)
    extent_mm = viewer.layers.extent.world[1]
    expected = [(n - 1) * s for n, s in zip(case.label.shape, spacing_mm, strict=True)]
    assert extent_mm == pytest.approx(expected, abs=1e-3)
    panel.session.state.case = case  # the file is that of scan-3
    panel.session.case_shown.emit(case)
    qtbot.wait(300)


def test_a_case_is_shown_in_slices_after_3d_without_a_case(
    shared_window: Any, project: Project, qtbot: Any
) -> None:
    viewer, panel = shared_window
    viewer.dims.ndisplay = 3
    panel.session.open_project(project.path)
    qtbot.waitUntil(lambda: panel.session.project is not None, timeout=20_000)
    panel.session.show_case("scan-0")
    qtbot.waitUntil(lambda: panel.session.case is not None, timeout=20_000)
    assert viewer.dims.ndisplay == 2


def test_a_key_that_is_held_acts_once(opened_panel: Any) -> None:
    viewer, panel = opened_panel
    window = viewer.window._qt_window.windowHandle()

    def send(kind: Any, key: Any, *, is_repeated: bool) -> None:
        no_modifier = Qt.KeyboardModifier.NoModifier
        QApplication.sendEvent(window, QKeyEvent(kind, int(key), no_modifier, "", is_repeated))

    def hold(key: Any) -> None:
        """Hold a key as X11 reports it; other systems repeat only the press."""
        send(QEvent.Type.KeyPress, key, is_repeated=False)
        for _ in range(3):
            send(QEvent.Type.KeyRelease, key, is_repeated=True)
            send(QEvent.Type.KeyPress, key, is_repeated=True)
        send(QEvent.Type.KeyRelease, key, is_repeated=False)

    for are_hidden in (True, False):
        hold(Qt.Key.Key_Q)
        assert panel.layers.are_overlays_hidden is are_hidden
    panel.layers.go_to_slice(4, 0)
    hold(Qt.Key.Key_Right)
    assert panel.layers.slice_index == 8
