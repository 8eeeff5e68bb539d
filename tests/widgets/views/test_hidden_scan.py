"""The scan beside the 3D view, which hides it."""

from __future__ import annotations

import pytest
from helpers.gestures import Gestures
from helpers.key_presses import press_key
from qtpy.QtCore import Qt

pytestmark = pytest.mark.gui


def test_the_key_of_channels_shows_no_scan_in_3d(gestures: Gestures) -> None:
    image = gestures.panel.layers.find_layer("image")
    gestures.viewer.dims.ndisplay = 3
    gestures.qtbot.wait(200)
    assert gestures.panel.layers.intensity_window.find_layer() is image
    press_key(gestures.viewer, Qt.Key.Key_C, Qt.KeyboardModifier.ShiftModifier)
    gestures.qtbot.wait(50)
    assert not image.visible
    gestures.viewer.dims.ndisplay = 2
    assert image.visible


def test_side_views_that_are_opened_in_3d_show_the_scan(gestures: Gestures) -> None:
    gestures.views.show_side_views(False)
    gestures.viewer.dims.ndisplay = 3
    gestures.qtbot.wait(200)
    gestures.views.show_side_views(True)
    gestures.qtbot.wait(200)
    for view in gestures.views.side_views:
        visible = {layer.name: layer.visible for layer in view.model.layers}
        assert visible["scan-3"]
        assert visible["label"]
    gestures.viewer.dims.ndisplay = 2
    gestures.qtbot.wait(200)
