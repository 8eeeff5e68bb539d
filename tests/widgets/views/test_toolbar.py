"""The toolbar above the canvas in the real window."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_dycon.widgets.layers.intensity_window import CUSTOM
from napari_dycon.widgets.layers.napari_internals import get_qt_viewer
from napari_dycon.widgets.views.planes import Plane

pytestmark = pytest.mark.gui


def test_the_toolbar_shows_and_changes_tool_plane_and_window(
    example_panel: Any, qtbot: Any
) -> None:
    viewer, panel = example_panel
    toolbar, views = panel.canvas_area.toolbar, panel.canvas_area.views
    label = panel.layers.find_layer("label")
    viewer.layers.selection.active = panel.layers.find_layer("image")
    toolbar.tools.buttons["polygon"].click()
    assert viewer.layers.selection.active is label
    assert str(label.mode) == "polygon"
    label.mode = "paint"
    assert [n for n, b in toolbar.tools.buttons.items() if b.isChecked()] == ["paint"]
    toolbar.tools.buttons["pan_zoom"].click()
    assert str(label.mode) == "pan_zoom"

    toolbar.plane_buttons[Plane.SAGITTAL].click()
    assert views.main_view.plane is Plane.SAGITTAL
    assert [p for p, b in toolbar.plane_buttons.items() if b.isChecked()] == [Plane.SAGITTAL]

    window = panel.layers.intensity_window
    toolbar.width_box.setValue(80.0)
    toolbar.level_box.setValue(120.0)
    assert window.range == pytest.approx((80.0, 160.0))
    assert toolbar.preset.currentText() == CUSTOM
    toolbar.preset.setCurrentText("Full range")
    toolbar.preset.textActivated.emit("Full range")
    array = panel.session.case.image.array[::2, ::2, ::2]
    assert window.range == pytest.approx((array.min(), array.max()))
    toolbar.histogram.show_below(toolbar.histogram_button)
    toolbar.histogram.region.setRegion((20.0, 90.0))
    assert window.range == pytest.approx((20.0, 90.0))
    assert toolbar.width_box.value() == pytest.approx(70.0)
    window.set_range(0.25, 0.75)  # of a scan that was normalized to 0-1
    toolbar.width_box.setValue(0.3)
    assert window.range == pytest.approx((0.35, 0.65))
    assert views.main_view.window_text == "W 0.300  L 0.500"
    counts = np.expm1(toolbar.histogram.bars.yData)
    assert counts.sum() == pytest.approx(array.size)
    toolbar.histogram.hide()
    panel.session.close_project()
    assert not toolbar.isEnabled()


def test_only_the_label_of_an_editable_project_has_tools(opened_panel: Any, qtbot: Any) -> None:
    _, panel = opened_panel
    buttons = panel.canvas_area.toolbar.tools.buttons
    path = panel.session.project.path
    panel.session.close_project()
    panel.session.open_project(path, read_only=True)
    qtbot.waitUntil(lambda: panel.session.project is not None, timeout=20_000)
    panel.session.show_case("scan-4")
    qtbot.waitUntil(lambda: panel.session.case is not None, timeout=20_000)
    assert buttons["pan_zoom"].isEnabled()
    assert not buttons["paint"].isEnabled()
    assert "Unavailable" in buttons["paint"].toolTip()


def test_the_own_window_hides_the_controls_of_napari(example_panel: Any) -> None:
    from napari_dycon.widgets.app import hide_docks

    viewer, panel = example_panel
    hide_docks(viewer, panel)
    assert not get_qt_viewer(viewer).dockLayerControls.isVisible()
    assert get_qt_viewer(viewer).dockLayerList.isVisible()  # the window of the tests is wide
