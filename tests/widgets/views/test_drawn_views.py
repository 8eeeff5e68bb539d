"""What each view draws: outlines, the circle of the brush, and the title of its slice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.gestures import Gestures
from napari.layers import Labels

from napari_dycon.widgets.layers.label_layer import CaseLabels, PredictedLabels
from napari_dycon.widgets.layers.napari_internals import unwrap_viewer
from napari_dycon.widgets.views.layer_mirror import copy_layer

pytestmark = pytest.mark.gui


def test_the_outline_of_the_label_is_drawn_in_all_views(gestures: Gestures) -> None:
    for view in gestures.views.views:
        contours = [layer.contour for layer in view.model.layers if isinstance(layer, CaseLabels)]
        assert contours == [1]


@pytest.mark.parametrize("layer_class", [Labels, PredictedLabels])
def test_a_copy_has_the_outline_of_its_layer(layer_class: type[Labels]) -> None:
    layer = layer_class(np.ones((4, 5, 6), np.uint8))
    layer.contour = 2
    layer_copy = copy_layer(layer)
    assert isinstance(layer_copy, Labels)
    assert layer_copy.contour == 2


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


def check_titles(views: Any) -> None:
    for view in views.views:
        view._draw_annotations()
        shown = view.model.dims.current_step[view.plane.value]
        assert f"slice {shown + 1} of" in view.annotations.content.title


def test_a_view_that_follows_later_tells_its_old_slice_until_then(
    gestures: Gestures, qtbot: Any
) -> None:
    """The number of one slice over the picture of another misleads."""
    views = gestures.views
    _, coronal, sagittal = views.views
    steps = coronal.model.dims.current_step[1], sagittal.model.dims.current_step[2]
    spacing = gestures.session.case.image.spacing_mm
    voxel = (5, steps[0] - 3, steps[1] + 4)
    views.gestures.move_to(tuple(v * s for v, s in zip(voxel, spacing, strict=True)))
    assert coronal.model.dims.current_step[1] == steps[0]  # not yet
    check_titles(views)
    qtbot.waitUntil(lambda: sagittal.model.dims.current_step[2] == voxel[2], timeout=20_000)
    qtbot.waitUntil(lambda: coronal.model.dims.current_step[1] == voxel[1], timeout=20_000)
    check_titles(views)
