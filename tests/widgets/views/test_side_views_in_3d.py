"""Beside the 3D view: visibility of overlays, and the status bar. The region of interest."""

from __future__ import annotations

import pytest
from helpers.gestures import Gestures
from qtpy.QtCore import QEvent, QPoint, Qt

pytestmark = pytest.mark.gui


def list_visible(gestures: Gestures) -> dict[str, bool]:
    """Visibility of the layers of a side view."""
    return {layer.name: layer.visible for layer in gestures.views.side_views[0].model.layers}


def test_overlays_are_shown_and_hidden_beside_the_3d_view(gestures: Gestures) -> None:
    before = list_visible(gestures)
    assert before["prediction"]
    gestures.viewer.dims.ndisplay = 3
    gestures.qtbot.wait(200)
    toggles = gestures.panel.review.toggles
    toggles["prediction"].setChecked(False)
    assert list_visible(gestures) == before | {"prediction": False}
    assert not gestures.panel.layers.find_layer("prediction").visible
    toggles["disagreement"].setChecked(True)
    assert list_visible(gestures) == before | {"prediction": False, "disagreement": True}
    toggles["prediction"].setChecked(True)
    toggles["disagreement"].setChecked(False)
    gestures.panel.layers.toggle_overlays()
    assert not any(
        is_visible for name, is_visible in list_visible(gestures).items() if name != "scan-3"
    )
    assert list_visible(gestures)["scan-3"]
    gestures.panel.layers.toggle_overlays()
    assert list_visible(gestures) == before
    assert not gestures.panel.layers.find_layer("label").visible  # the 3D view shows surfaces
    gestures.viewer.dims.ndisplay = 2
    gestures.qtbot.wait(200)
    assert list_visible(gestures) == before
    assert gestures.panel.layers.find_layer("label").visible


def test_nothing_is_said_of_the_hidden_scan_in_3d(gestures: Gestures) -> None:
    layers, views = gestures.panel.layers, gestures.views
    position = tuple(gestures.viewer.dims.point)
    assert "intensity" in layers.describe_position(position)
    gestures.viewer.dims.ndisplay = 3
    gestures.qtbot.wait(100)
    assert layers.describe_position(position) == ""
    for role in ("image", "label"):
        assert layers.find_layer(role).get_status(position, world=True) == ""
    side = views.side_views[0]  # still shows a slice
    point = QPoint(side.canvas.width() // 2, side.canvas.height() // 2)
    gestures.send(side, QEvent.Type.MouseMove, point, Qt.MouseButton.NoButton)
    assert "intensity" in side.readout


def test_all_views_show_the_region_of_interest(gestures: Gestures) -> None:
    gestures.panel.layers.go_to_slice(6, 0)
    coronal, sagittal = gestures.views.side_views
    gestures.panel.layers.go_to_slice(6, 1)
    gestures.panel.layers.go_to_slice(7, 2)
    box = (slice(4, 9), slice(5, 12), slice(6, 14))
    gestures.session.annotation.set_roi(box)
    gestures.qtbot.wait(100)
    for view in (coronal, sagittal):
        first = gestures.locate(view, (3.5, 4.5, 5.5))
        last = gestures.locate(view, (8.5, 11.5, 13.5))
        expected = (first.x(), first.y(), last.x(), last.y())
        assert view.annotations.content.region == pytest.approx(expected, abs=1)
    gestures.panel.layers.go_to_slice(3, 1)  # before the region
    gestures.qtbot.wait(100)
    assert coronal.annotations.content.region is None
    assert sagittal.annotations.content.region is not None
    gestures.panel.layers.toggle_overlays()
    gestures.qtbot.wait(100)
    assert sagittal.annotations.content.region is None
    gestures.panel.layers.toggle_overlays()
    gestures.session.annotation.set_roi(None)
    gestures.qtbot.wait(100)
    assert sagittal.annotations.content.region is None


def test_lines_of_the_crosshair_leave_the_letters_free(gestures: Gestures) -> None:
    from qtpy.QtGui import QPainter, QPixmap

    view = gestures.views.main_view
    annotations = view.annotations
    pixmap = QPixmap(annotations.size())
    painter = QPainter(pixmap)
    space = annotations._list_space_between_letters(painter)
    painter.end()
    middle = annotations.width() // 2
    assert not space.contains(QPoint(middle, annotations.height() - 8 - 13 - 4 - 6))  # "P"
    assert space.contains(QPoint(middle, annotations.height() // 3))


def test_the_status_bar_never_describes_an_earlier_state(gestures: Gestures) -> None:
    main, label = gestures.views.main_view, gestures.panel.layers.find_layer("label")
    point = gestures.locate(main, (0, 8, 8))
    gestures.send(main, QEvent.Type.MouseMove, point, Qt.MouseButton.NoButton)
    z = gestures.voxel[0]
    gestures.session.fill_background(z, 0)
    gestures.qtbot.wait(100)
    assert "background" in gestures.viewer.status
    label.undo()
    gestures.qtbot.wait(100)
    assert "not annotated" in gestures.viewer.status
    gestures.panel.layers.go_to_slice(z + 1, 0)
    gestures.qtbot.wait(100)
    assert f"slice {z + 2} " in gestures.viewer.status
    gestures.views.gestures.leave(main)  # the mouse is elsewhere
    gestures.panel.layers.go_to_slice(z, 0)
    gestures.qtbot.wait(100)
    assert gestures.viewer.status == ""
