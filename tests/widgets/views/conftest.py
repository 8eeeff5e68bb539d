"""The window of ``opened_panel`` with its three views."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.gestures import Gestures


@pytest.fixture
def gestures(opened_panel: Any, qtbot: Any) -> Gestures:
    """Three views of scan-3, without a tool."""
    viewer, panel = opened_panel
    panel.canvas_area.views.show_side_views(True)
    panel.layers.find_layer("label").mode = "pan_zoom"
    qtbot.wait(400)
    return Gestures(viewer, panel, qtbot)
