"""Clicks that commands wait for, what a click moves, and how scans fit into the views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.gestures import LEFT, Gestures
from helpers.nifti_files import save_nifti
from qtpy.QtCore import QEvent, QPoint, Qt

from napari_dycon.widgets.views.annotations import fit_beside
from napari_dycon.widgets.views.view import View

pytestmark = pytest.mark.gui
CONTROL = Qt.KeyboardModifier.ControlModifier


def read_camera(view: View) -> tuple[float, ...]:
    """Center and zoom of a view."""
    return (*view.geometry.center_mm, view.geometry.zoom)


@pytest.mark.parametrize("number", [0, 1])
def test_a_click_for_a_command_neither_paints_nor_moves_the_crosshair(
    gestures: Gestures, number: int
) -> None:
    """The tool that was active before is active again after the click."""
    view, label = gestures.views.views[number], gestures.panel.layers.find_layer("label")
    label.mode = "paint"
    gestures.qtbot.wait(100)
    before, position = gestures.session.case.label.copy(), gestures.voxel
    voxels: list[tuple[int, int, int]] = []
    gestures.panel.layers.call_on_next_click(voxels.append)
    gestures.qtbot.wait(100)
    point = gestures.locate(view, (2, 2, 2))
    gestures.click(view, point)
    assert len(voxels) == 1
    np.testing.assert_array_equal(gestures.session.case.label, before)
    assert gestures.voxel == position
    assert str(label.mode) == "paint"
    gestures.click(view, point)  # the next one paints
    assert (gestures.session.case.label != before).any()


def test_a_click_beside_every_structure_leaves_the_label_alone(gestures: Gestures) -> None:
    label = gestures.panel.layers.find_layer("label")
    label.mode = "paint"
    before = gestures.session.case.label.copy()
    gestures.panel.review.accept_component_button.click()
    gestures.click(gestures.views.main_view, gestures.locate(gestures.views.main_view, (9, 1, 1)))
    assert gestures.panel.message_label.level == "error"
    np.testing.assert_array_equal(gestures.session.case.label, before)


def test_a_command_started_twice_keeps_the_tool(gestures: Gestures) -> None:
    layers, label = gestures.panel.layers, gestures.panel.layers.find_layer("label")
    label.mode = "paint"
    layers.call_on_next_click(lambda _: layers.call_on_next_click(lambda _: None))
    gestures.qtbot.wait(100)
    main_view = gestures.views.main_view
    for _ in range(2):
        gestures.click(main_view, gestures.locate(main_view, (5, 5, 5)))
    assert str(label.mode) == "paint"


def test_a_click_never_moves_the_view_it_was_made_in(gestures: Gestures) -> None:
    axial, coronal, _ = gestures.views.views
    center = QPoint(axial.canvas.width() // 2, axial.canvas.height() // 2)
    gestures.wheel(axial, 8, center, CONTROL)
    camera = read_camera(axial)
    gestures.click(axial, QPoint(3, 3))
    assert read_camera(axial) == camera
    fitted = read_camera(coronal)
    gestures.click(axial, gestures.locate(axial, (0, 0, 0)))
    assert read_camera(coronal) == pytest.approx(fitted)  # it shows all of the scan already


def test_a_zoomed_view_follows_the_crosshair_but_not_beyond_the_scan(gestures: Gestures) -> None:
    axial, coronal, _ = gestures.views.views
    center = QPoint(coronal.canvas.width() // 2, coronal.canvas.height() // 2)
    gestures.wheel(coronal, 8, center, CONTROL)
    gestures.click(axial, gestures.locate(axial, (0, 5, 0)))
    x, y = coronal.annotations.content.crosshair or (-1.0, -1.0)
    assert 0 <= x <= coronal.canvas.width()
    assert 0 <= y <= coronal.canvas.height()
    left_mm = coronal.geometry.to_mm(0, 0)[1]
    assert left_mm >= -1.0  # half a voxel: nothing black beside the scan


def test_a_case_of_another_size_is_fitted(gestures: Gestures, tmp_path: Path) -> None:
    """Overlays of the previous case, which are hidden, do not count."""
    session = gestures.session
    noise = np.random.default_rng(0).normal(100, 10, (20, 22, 9)).astype(np.int16)
    session.add_cases([save_nifti(tmp_path / "small.nii.gz", noise)])
    gestures.qtbot.waitUntil(
        lambda: "small" in [case.id for case in session.require_project().cases], timeout=20_000
    )
    session.show_case("small")
    gestures.qtbot.waitUntil(lambda: session.case.id == "small", timeout=20_000)
    gestures.qtbot.wait(600)
    for view in gestures.views.views:
        shape, spacing = session.case.image.shape, session.case.image.spacing_mm
        ends = [
            gestures.locate(view, voxel) for voxel in ((0, 0, 0), tuple(size - 1 for size in shape))
        ]
        assert (ends[0].x() + ends[1].x()) / 2 == pytest.approx(view.canvas.width() / 2, abs=2)
        assert (ends[0].y() + ends[1].y()) / 2 == pytest.approx(view.canvas.height() / 2, abs=2)
        extent = max(
            shape[axis] * spacing[axis] * view.geometry.zoom / pixels
            for axis, pixels in zip(
                view.plane.displayed_axes, (view.canvas.height(), view.canvas.width()), strict=True
            )
        )
        assert extent == pytest.approx(0.95, abs=0.01)


def test_outlines_are_outlines_in_all_views(gestures: Gestures) -> None:
    """Label, prediction and other layers have the same contour in every view."""
    gestures.session.next_uncertain()
    views = gestures.views
    views.show_side_views(False)
    views.show_side_views(True)  # also for layers that exist before the view
    gestures.panel.layers.overlays.show_proposal(gestures.session.case.label.copy())
    gestures.qtbot.wait(200)
    for layer in gestures.viewer.layers:
        for view in views.side_views:
            if hasattr(layer, "contour"):
                assert view.model.layers[layer.name].contour == layer.contour, layer.name
    prediction = views.side_views[0].model.layers["prediction"]
    assert prediction.contour == 1


def test_the_description_under_a_resting_mouse_follows_the_slice(gestures: Gestures) -> None:
    views, case = gestures.views, gestures.session.case
    axial = views.main_view
    point = gestures.locate(axial, (0, 6, 7))
    gestures.send(axial, QEvent.Type.MouseMove, point, LEFT)
    gestures.wheel(axial, 2, point)
    z = gestures.voxel[0]
    intensity = f"{case.image.array[z, 6, 7]:.5g}"
    assert axial.readout.startswith(f"slice {z + 1} · intensity {intensity}")
    gestures.session.show_case("scan-4")
    gestures.qtbot.waitUntil(lambda: gestures.session.case.id == "scan-4", timeout=20_000)
    gestures.qtbot.wait(400)
    other = gestures.session.case.image.array
    assert str(axial.readout).split(" · ")[1] in {
        f"intensity {value:.5g}" for value in other[gestures.voxel[0]].ravel()
    }


def test_the_description_follows_edits(gestures: Gestures) -> None:
    axial = gestures.views.main_view
    z = gestures.voxel[0]
    gestures.send(axial, QEvent.Type.MouseMove, gestures.locate(axial, (z, 6, 7)), LEFT)
    assert "not annotated" in axial.readout
    gestures.session.fill_background(z)
    assert "background" in axial.readout
    label = gestures.panel.layers.find_layer("label")
    label.paint((z, 6, 7), 1)
    assert "box" in axial.readout  # at once, not when the label is saved
    label.undo()
    assert "background" in axial.readout
    label.undo()
    assert "not annotated" in axial.readout
    gestures.views.show_side_views(False)  # a view that goes takes its description along
    gestures.views.gestures.update_description()


def test_texts_leave_the_scale_bar_its_place(gestures: Gestures) -> None:
    metrics = gestures.views.main_view.annotations.fontMetrics()
    text = "slice 45 · intensity 131 · left atrium · predicted: background"
    whole = metrics.horizontalAdvance(text)
    assert fit_beside(text, whole, metrics) == text
    part = fit_beside(text, whole / 2, metrics)
    assert part.startswith("slice 45")
    assert part.endswith("…")
    assert metrics.horizontalAdvance(part) <= whole / 2
    assert not fit_beside(text, 40, metrics)
