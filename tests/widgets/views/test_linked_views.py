"""Three linked views in the real window: mouse, painting, position, cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.gestures import RIGHT, Gestures
from qtpy.QtCore import QPoint, Qt

from napari_dycon.widgets.layers.label_layer import CaseLabels
from napari_dycon.widgets.views.planes import Plane
from napari_dycon.widgets.window.preferences import get_preferences

pytestmark = pytest.mark.gui
SHIFT, CONTROL = Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.ControlModifier


def find_label(view: Any) -> CaseLabels:
    """Label layer of a view."""
    return next(layer for layer in view.model.layers if isinstance(layer, CaseLabels))


def test_a_click_moves_the_crosshair_in_all_views(gestures: Gestures, qtbot: Any) -> None:
    views = gestures.views
    axial, coronal, sagittal = views.views
    gestures.click(coronal, gestures.locate(coronal, (6, 0, 15)))
    position = gestures.voxel
    assert (position[0], position[2]) == (6, 15)
    assert axial.model.dims.current_step[0] == 6
    qtbot.waitUntil(lambda: sagittal.model.dims.current_step[2] == 15, timeout=20_000)
    gestures.click(axial, gestures.locate(axial, (0, 4, 9)))
    assert gestures.voxel == (6, 4, 9)
    qtbot.waitUntil(lambda: coronal.model.dims.current_step[1] == 4, timeout=20_000)
    for view in views.views:
        point = gestures.locate(view, (6, 4, 9))
        assert view.annotations.content.crosshair == pytest.approx((point.x(), point.y()), abs=1)
    assert "axial · slice 7 of" in axial.annotations.content.title
    assert not gestures.session.has_unsaved_changes


def test_the_cursor_follows_shift_while_a_tool_is_active(gestures: Gestures) -> None:
    sagittal = gestures.views.views[2]
    label = gestures.panel.layers.find_layer("label")
    label.mode = "paint"
    gestures.qtbot.wait(100)
    before = gestures.session.case.label.copy()
    gestures.click(sagittal, gestures.locate(sagittal, (8, 11, 0)), modifiers=SHIFT)
    assert gestures.voxel[:2] == (8, 11)
    np.testing.assert_array_equal(gestures.session.case.label, before)
    gestures.click(sagittal, gestures.locate(sagittal, (12, 14, 0)))  # paints
    assert gestures.voxel[:2] == (8, 11)
    assert (gestures.session.case.label != before).any()


def test_painting_in_a_side_view_is_an_edit_of_the_label(gestures: Gestures) -> None:
    session, panel = gestures.session, gestures.panel
    coronal = gestures.views.views[1]
    panel.layers.find_layer("label").mode = "paint"
    gestures.qtbot.wait(100)
    assert str(find_label(coronal).mode) == "paint"
    saved: list[str] = []
    session.label_saved.connect(saved.append)
    before = session.case.label.copy()
    start, end = (gestures.locate(coronal, (z, 0, 10)) for z in (8, 14))
    gestures.drag(coronal, start, end)
    changed = np.argwhere(session.case.label != before)
    assert set(changed[:, 1]) == {gestures.voxel[1]}  # only the slice that is shown
    assert len(set(changed[:, 0])) >= 6
    gestures.qtbot.waitUntil(lambda: "scan-3" in saved, timeout=20_000)
    panel.layers.find_layer("label").undo()  # one history for all views
    np.testing.assert_array_equal(session.case.label, before)
    gestures.qtbot.wait(150)
    side = find_label(coronal)
    np.testing.assert_array_equal(side._slice.image.raw, before[:, gestures.voxel[1]])


def test_the_button_says_which_slice_it_marks(gestures: Gestures) -> None:
    axial, coronal, _ = gestures.views.views
    button = gestures.panel.annotate.completion.slice_button
    assert button.text() == "Mark slice complete"
    gestures.click(coronal, gestures.locate(coronal, (6, 0, 15)))
    assert button.text() == "Mark coronal slice complete"
    assert "this coronal slice" in button.toolTip()
    button.click()
    assert (gestures.session.case.label[:, gestures.voxel[1]] != 255).all()
    message = f"Coronal slice {gestures.voxel[1] + 1} marked complete."
    assert gestures.panel.message_label.text() == message
    gestures.click(axial, gestures.locate(axial, (0, 4, 9)))
    assert button.text() == "Mark slice complete"


def test_undo_in_an_outline_removes_its_last_point(gestures: Gestures) -> None:
    session, coronal = gestures.session, gestures.views.views[1]
    label = gestures.panel.layers.find_layer("label")
    label.paint((10, 4, 4), 1)
    painted = session.case.label.copy()
    label.mode = "polygon"
    gestures.qtbot.wait(100)
    assert not label.remove_last_point()
    outline = find_label(coronal)._overlays["polygon"]
    for voxel in ((4, 0, 4), (4, 0, 14), (12, 0, 14)):
        gestures.click(coronal, gestures.locate(coronal, voxel))
    assert len(outline.points) == 4  # the last one follows the mouse
    label.undo()
    assert [tuple(int(c) for c in point)[::2] for point in outline.points[:-1]] == [(4, 4), (4, 14)]
    np.testing.assert_array_equal(session.case.label, painted)
    assert label.remove_last_point()
    assert label.remove_last_point()
    assert outline.points == []
    label.undo()
    assert (session.case.label != painted).any()


def test_an_outline_is_painted_in_the_slice_that_is_shown(gestures: Gestures) -> None:
    session, coronal = gestures.session, gestures.views.views[1]
    gestures.panel.layers.find_layer("label").mode = "polygon"
    gestures.qtbot.wait(100)
    before = session.case.label.copy()
    for voxel in ((4, 0, 4), (4, 0, 14)):
        gestures.click(coronal, gestures.locate(coronal, voxel))
    gestures.wheel(coronal, 2, gestures.locate(coronal, (8, 0, 9)))
    for voxel in ((12, 0, 14), (12, 0, 4)):
        gestures.click(coronal, gestures.locate(coronal, voxel))
    layer = find_label(coronal)
    layer._overlays["polygon"].add_polygon_to_labels(layer)  # as a double click does
    changed = np.argwhere(session.case.label != before)
    assert len(changed) > 20
    assert set(changed[:, 1]) == {gestures.voxel[1]}


def test_an_outline_does_not_hide_the_scan(gestures: Gestures) -> None:
    for view in gestures.views.views:
        layer = find_label(view)
        canvas = view.qt_viewer.canvas
        visual = canvas._layer_overlay_to_visual[layer][layer._overlays["polygon"]]
        assert visual._polygon.color.alpha <= 0.3
        assert visual._polygon.border_color.alpha == 1
        assert visual._polygon._border_width > 1


def test_the_limits_of_the_brush_apply_in_all_views(gestures: Gestures) -> None:
    case = gestures.session.case
    gestures.session.annotation.set_paint_range((140.0, 1e4))
    twin = find_label(gestures.views.views[2])
    bright = np.argwhere(case.image.array > 150)
    place = tuple(int(c) for c in bright.mean(axis=0).round())
    twin.brush_size = 30
    twin.paint(place, 1)
    painted = case.label == 1
    assert painted.any()
    assert (case.image.array[painted] >= 140).all()


def test_brush_and_structure_are_those_of_the_main_view(gestures: Gestures) -> None:
    label, twin = gestures.panel.layers.find_layer("label"), find_label(gestures.views.views[1])
    gestures.panel.layers.set_brush_mm(9.0)
    gestures.panel.annotate.brush.select_value(0)
    gestures.qtbot.wait(100)
    assert twin.selected_label == 0
    assert twin.brush_mm == pytest.approx(label.brush_mm)
    twin.mode = "erase"
    assert str(label.mode) == "erase"


def test_the_wheel_goes_through_slices_and_zooms_with_control(gestures: Gestures) -> None:
    axial, coronal, _ = gestures.views.views
    before = gestures.voxel
    middle = QPoint(axial.canvas.width() // 2, axial.canvas.height() // 2)
    gestures.wheel(axial, 2, middle)
    assert gestures.voxel == (before[0] + 2, *before[1:])
    gestures.wheel(coronal, -3, QPoint(40, 40))
    assert gestures.voxel == (before[0] + 2, before[1] - 3, before[2])
    point = QPoint(60, 90)
    zoom, fixed = axial.geometry.zoom, axial.to_position(60, 90)
    gestures.wheel(axial, 3, point, CONTROL)
    assert axial.geometry.zoom == pytest.approx(zoom * 1.2**3, rel=1e-3)
    assert axial.to_position(60, 90) == pytest.approx(fixed, abs=1e-3)
    assert gestures.voxel == (before[0] + 2, before[1] - 3, before[2])


def test_the_wheel_can_zoom_as_in_napari(gestures: Gestures) -> None:
    axial = gestures.views.main_view
    settings = get_preferences()
    settings.views.wheel_browses = False
    try:
        before, zoom = gestures.voxel, axial.geometry.zoom
        gestures.wheel(axial, 1, QPoint(50, 50))
        assert gestures.voxel == before
        assert axial.geometry.zoom > zoom
        gestures.wheel(axial, 1, QPoint(50, 50), CONTROL)
        assert gestures.voxel[0] == before[0] + 1
    finally:
        settings.views.wheel_browses = True


@pytest.mark.parametrize("role", ["label", "image", "prediction"])
def test_the_right_button_changes_window_and_level_whatever_is_selected(
    gestures: Gestures, role: str
) -> None:
    viewer, panel = gestures.viewer, gestures.panel
    axial, coronal, _ = gestures.views.views
    viewer.layers.selection.active = panel.layers.find_layer(role)
    if role == "label":
        panel.layers.find_layer("label").mode = "paint"
    gestures.qtbot.wait(100)
    label, zoom = gestures.session.case.label.copy(), axial.geometry.zoom
    low, high = panel.layers.intensity_window.range
    for view in (axial, coronal):
        gestures.drag(view, QPoint(60, 60), QPoint(100, 60), RIGHT)  # to the right: wider
        new_low, new_high = panel.layers.intensity_window.range
        assert new_high - new_low > high - low
        assert (new_low + new_high) / 2 == pytest.approx((low + high) / 2)
        gestures.drag(view, QPoint(60, 60), QPoint(60, 40), RIGHT)  # upwards: darker
        low, high = panel.layers.intensity_window.range
        assert (low + high) / 2 > (new_low + new_high) / 2
    twin = coronal.model.layers["scan-3"]
    assert tuple(twin.contrast_limits) == pytest.approx((low, high))
    assert panel.canvas_area.toolbar.width_box.value() == pytest.approx(high - low, abs=0.6)
    np.testing.assert_array_equal(gestures.session.case.label, label)
    assert axial.geometry.zoom == zoom
    assert panel.layers.find_layer(role) is viewer.layers.selection.active


def test_commands_for_a_slice_act_on_the_view_that_was_used(gestures: Gestures) -> None:
    case, panel = gestures.session.case, gestures.panel
    coronal = gestures.views.views[1]
    gestures.click(coronal, gestures.locate(coronal, (5, 0, 5)))
    index = gestures.voxel[1]
    assert coronal.annotations.content.is_active
    panel.annotate.mark_slice_complete()
    assert (case.label[:, index] != 255).all()
    assert (case.label[gestures.voxel[0]] == 255).any()


def test_commands_that_wait_for_a_click_take_one_in_a_side_view(gestures: Gestures) -> None:
    sagittal = gestures.views.views[2]
    voxels: list[tuple[int, int, int]] = []
    gestures.panel.layers.call_on_next_click(voxels.append)
    gestures.qtbot.wait(100)
    x = gestures.voxel[2]
    gestures.click(sagittal, gestures.locate(sagittal, (7, 9, x)))
    assert voxels == [(7, 9, x)]


def test_napari_controls_never_show_slices_turned(gestures: Gestures) -> None:
    viewer, views = gestures.viewer, gestures.views
    planes = []
    for _ in range(3):
        viewer.dims.roll()
        gestures.qtbot.wait(100)
        plane = views.main_view.plane
        planes.append(plane)
        assert tuple(viewer.dims.order) == plane.order
        assert viewer.scene.camera.orientation2d[0] == plane.vertical_orientation
        shown = {view.plane for view in views.views}
        assert len(shown) == 3
    assert planes == [Plane.SAGITTAL, Plane.CORONAL, Plane.AXIAL]
    viewer.dims.transpose()
    gestures.qtbot.wait(100)
    assert tuple(viewer.dims.order) == Plane.AXIAL.order


def test_another_case_is_shown_in_all_views(gestures: Gestures) -> None:
    session = gestures.session
    session.show_case("scan-4")
    gestures.qtbot.waitUntil(lambda: session.case.id == "scan-4", timeout=20_000)
    gestures.qtbot.wait(400)
    for view in gestures.views.views:
        assert view.annotations.content.name == "scan-4"
        assert find_label(view).data is session.case.label
        scan = next(layer for layer in view.model.layers if layer.name == "scan-4")
        assert scan.data is session.case.image.array
        assert tuple(scan.scale) == session.case.image.spacing_mm
        assert [layer.name for layer in view.model.layers] == [
            layer.name for layer in gestures.viewer.layers
        ]


def test_the_region_of_growing_stays_in_the_main_view(gestures: Gestures) -> None:
    gestures.panel.layers.roi.toggle_editing()
    gestures.qtbot.wait(200)
    assert "region" in gestures.viewer.layers
    assert all("region" not in view.model.layers for view in gestures.views.side_views)


def test_the_mouse_tells_slice_intensity_and_structure(gestures: Gestures) -> None:
    case, views = gestures.session.case, gestures.views
    case.label[5, 6, 7] = 1
    views.gestures.move_to((5.0 * case.image.spacing_mm[0], 0.0, 0.0))
    gestures.qtbot.wait(100)
    coronal = views.views[1]
    views.gestures.move_to(
        tuple(i * s for i, s in zip((5, 6, 7), case.image.spacing_mm, strict=True))
    )
    # Side views follow one by one.
    y_mm = 6 * case.image.spacing_mm[1]
    gestures.qtbot.waitUntil(lambda: coronal.displayed_position[1] == pytest.approx(y_mm))
    point = gestures.locate(coronal, (5, 6, 7))
    views.gestures.hover(coronal, point.x(), point.y())
    text = f"slice 7 · intensity {case.image.array[5, 6, 7]:.5g} · box"
    assert coronal.readout.startswith(text)
    assert gestures.viewer.status.startswith(text)
    label = gestures.panel.layers.find_layer("label")
    position = [i * s for i, s in zip((5, 6, 7), case.image.spacing_mm, strict=True)]
    assert label.get_status(position).startswith("slice")
    assert "not annotated" in label.get_status([0.0, 0.0, 0.0])


def test_hiding_the_views_leaves_one_canvas(gestures: Gestures) -> None:
    views, toolbar = gestures.views, gestures.panel.canvas_area.toolbar
    assert toolbar.linked_button.isChecked()
    toolbar.linked_button.click()
    gestures.qtbot.wait(200)
    assert not views.has_side_views
    assert not toolbar.linked_button.isChecked()
    gestures.panel.layers.find_layer("label").paint((3, 3, 3), 1)  # nothing follows any more
    toolbar.linked_button.click()
    gestures.qtbot.wait(300)
    assert [view.plane for view in views.views] == [Plane.AXIAL, Plane.CORONAL, Plane.SAGITTAL]
    assert find_label(views.views[1]).data is gestures.session.case.label


def test_the_scan_is_fitted_again_until_the_user_zooms(gestures: Gestures) -> None:
    views, main_window = gestures.views, gestures.viewer.window._qt_window
    axial = views.main_view
    gestures.viewer.reset_view()
    gestures.qtbot.wait(100)
    fitted = axial.geometry.zoom
    main_window.resize(1000, 600)
    gestures.qtbot.waitUntil(lambda: axial.geometry.zoom < 0.9 * fitted, timeout=20_000)
    gestures.wheel(axial, 2, QPoint(50, 50), CONTROL)
    zoomed = axial.geometry.zoom
    main_window.resize(1366, 768)
    gestures.qtbot.wait(400)
    assert axial.geometry.zoom == pytest.approx(zoomed)
