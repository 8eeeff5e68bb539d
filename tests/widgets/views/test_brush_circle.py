"""The circle of the brush leaves nothing on the scan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.gestures import Gestures

from napari_dycon.widgets.layers.napari_internals import unwrap_viewer

pytestmark = pytest.mark.gui


def grab_canvas(view: Any) -> np.ndarray:
    return np.asarray(view.qt_viewer.screenshot(flash=False))


def test_the_scan_is_as_before_once_the_brush_has_left(gestures: Gestures, qtbot: Any) -> None:
    """A dark square stayed, which may be taken for a calcification."""
    for view in gestures.views.views:
        qtbot.wait(100)
        before = grab_canvas(view)
        model = unwrap_viewer(view.model)
        circle = model.canvas.overlays._brush_circle
        circle.size = 20
        model.mouse_over_canvas = True
        circle.visible = True
        circle.position = (before.shape[1] // 2, before.shape[0] // 2)
        model.canvas.events.background_color()  # as when a theme changes
        qtbot.wait(50)
        assert not np.array_equal(grab_canvas(view), before)
        circle.visible = False
        model.mouse_over_canvas = False
        qtbot.wait(50)
        np.testing.assert_array_equal(grab_canvas(view), before)
