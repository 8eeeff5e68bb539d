"""A project with a prediction in a window, and a window as new again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from napari_dycon.project.store import Project
from napari_dycon.widgets.views.planes import Plane
from napari_dycon.widgets.window.preferences import get_preferences

WINDOW_SIZE = (1366, 768)


def wait_until(condition: Callable[[], bool]) -> None:
    """Process events until a condition holds, for at most 20 s."""
    from qtpy.QtTest import QTest

    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        QTest.qWait(10)


def reset_window(viewer: Any, panel: Any, visible: dict[str, bool]) -> None:
    """Close the project and return to the state of a new window."""
    panel.session.flush()
    panel.session.close_project()
    wait_until(lambda: bool(panel.task_runner.is_idle))
    viewer.layers.clear()
    viewer.theme = "dark"
    viewer.window._qt_window.resize(*WINDOW_SIZE)
    reset_controls(panel, visible)


def reset_controls(panel: Any, visible: dict[str, bool]) -> None:
    """Set what is shown and how the brush paints as in a new window."""
    layers, views = panel.layers, panel.canvas_area.views
    if layers.are_overlays_hidden:
        layers.toggle_overlays()
    for role, is_visible in visible.items():
        layers.set_visible(role, is_visible)
        if role in panel.review.toggles:
            panel.review.toggles[role].setChecked(is_visible)
    layers.set_filled(True)
    layers.set_brush_3d(False)
    layers.set_brush_mm(get_preferences().annotate.brush_mm)
    views.show_crosshair(True)
    views.show_plane(Plane.AXIAL)
    panel.tabs.setCurrentIndex(0)
    panel.message_label.dismiss()
    panel.message_label._recent.clear()


def open_example(panel: Any, project: Project) -> None:
    """Open a project with a made-up prediction of scan-3, and show scan-3."""
    run = project.runs.create("dycon", {})
    shape = project.read_image("scan-3").shape
    mask = np.zeros(shape, np.uint8)
    mask[4:12, 4:12, 4:12] = 1
    mask[15:18, 15:18, 14:17] = 1
    uncertainty = np.full(shape, 0.01, np.float32)
    uncertainty[4:6, 4:6, 4:8] = 0.9
    uncertainty[14:16, 14:16, 14:16] = 0.9
    project.predictions.write(run.id, "scan-3", mask, uncertainty, uncertainty / 2)
    panel.session.open_project(project.path)
    wait_until(lambda: panel.session.project is not None)
    panel.session.show_case("scan-3")
    wait_until(lambda: panel.session.case is not None)
    wait_until(lambda: panel.strip.profile is not None)
    # Overlays come one a turn of the event loop, this one last.
    wait_until(lambda: panel.layers.find_layer("disagreement") is not None)
