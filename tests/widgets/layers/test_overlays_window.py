"""Overlays and region marker in the real window."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from napari_dycon.widgets.layers.camera import choose_center
from napari_dycon.widgets.layers.region_marker import SHOWN_MS, make_ball

pytestmark = pytest.mark.gui


def draw(layer: Any) -> Any:
    """Color of each voxel in the current slice, as sent to OpenGL."""
    texture = np.asarray(layer._slice.image.view)
    colors = np.zeros((256, 4))
    for value, color in layer.colormap.color_dict.items():
        if value is not None:
            colors[value] = color
    return colors[texture]


def show_slice(panel: Any, index: int, qtbot: Any) -> None:
    panel.layers.go_to_slice(index, 0)
    qtbot.wait(100)


def test_labels_are_filled_and_outlined_and_predictions_dashed(
    example_panel: Any, qtbot: Any
) -> None:
    viewer, panel = example_panel
    layers = panel.layers
    label, prediction = layers.find_layer("label"), layers.find_layer("prediction")
    label.brush_size = 7
    show_slice(panel, 8, qtbot)
    label.paint((8, 10, 10), 1)
    painted = panel.session.case.label[8] == 1
    inside = ndimage.binary_erosion(painted)
    assert inside.sum() > 10
    shown = draw(label)[..., 3]
    assert np.allclose(shown, np.where(inside, 0.35, painted))
    label.refresh()  # partial updates while painting draw the same as a whole slice
    assert np.array_equal(draw(label)[..., 3], shown)
    label.undo()
    assert not draw(label)[..., 3].any()
    label.redo()

    panel.review.overlay_controls.fill_toggle.setChecked(False)
    assert np.allclose(draw(label)[..., 3], painted & ~inside)
    panel.review.overlay_controls.fill_toggle.setChecked(True)

    shown = draw(prediction)
    assert not shown[8, 8].any()  # outline only
    edge = shown[4, 4:12]
    assert (edge[:, 3] == 1).all()
    assert edge[:, :3].max() > 0.7
    assert edge[:, :3].min() < 0.1  # light and dark dashes
    order = [layer.name for layer in viewer.layers]
    assert order.index("uncertainty") < order.index("prediction") < order.index("label")


def test_toggles_numbers_and_flash(example_panel: Any, qtbot: Any) -> None:
    viewer, panel = example_panel
    layers, review = panel.layers, panel.review
    controls = review.overlay_controls
    uncertainty = layers.find_layer("uncertainty")

    # The difference hides the uncertainty, whose colors could be taken for it.
    review.toggles["difference"].setChecked(True)
    qtbot.waitUntil(lambda: layers.find_layer("difference") is not None, timeout=20_000)
    qtbot.waitUntil(lambda: not uncertainty.visible, timeout=20_000)
    difference = layers.find_layer("difference")
    assert difference.visible
    assert viewer.layers.index(difference) > viewer.layers.index(layers.find_layer("label"))
    review.toggles["difference"].setChecked(False)
    assert uncertainty.visible
    assert not difference.visible
    assert review.toggles["uncertainty"].isChecked()

    # Layers without content are not listed.
    rows = viewer.window._qt_viewer.layers
    listed = sum(not rows.isRowHidden(row) for row in range(rows.model().rowCount()))
    assert listed == len(viewer.layers) - 1

    # Numbers beside the sliders.
    controls.opacities["label"].setValue(40)
    assert layers.find_layer("label").opacity == pytest.approx(0.4)
    controls.threshold.setValue(0.55)
    assert uncertainty.contrast_limits[0] == pytest.approx(0.55)
    assert controls.threshold_slider.value() == 55
    assert controls.color_bar.low == pytest.approx(0.55)
    controls.threshold_slider.setValue(20)
    assert controls.threshold.value() == pytest.approx(0.2)

    # A look at the scan alone, and back to exactly what was shown.
    label = layers.find_layer("label")
    label.mode = "paint"
    before = {layer.name: layer.visible for layer in viewer.layers}
    layers.toggle_overlays()
    assert [layer.name for layer in viewer.layers if layer.visible] == ["scan-3"]
    layers.toggle_overlays()
    assert {layer.name: layer.visible for layer in viewer.layers} == before
    assert label.mode == "paint"
    assert "Q" in {shortcut.key for shortcut in panel.shortcuts}

    # The next uncertain region is marked for two seconds, or until the next stroke.
    review.next_uncertain_region()
    marker = layers.find_layer("marker")
    assert marker.visible
    assert viewer.layers.selection.active is label
    assert draw(marker)[..., 3].any()
    qtbot.waitUntil(lambda: not marker.visible, timeout=SHOWN_MS + 5_000)
    review.next_uncertain_region()
    assert marker.visible
    label.paint((3, 3, 3), 1)
    assert not marker.visible


@pytest.mark.parametrize(
    ("center", "region", "expected"),
    [
        (50, (40, 60), 50),  # in view: nothing moves
        (50, (-5, 5), 30),  # at the edge of the scan: the view ends where the scan ends
        (50, (160, 170), 165),  # outside of the view
        (50, (70, 80), 75),  # near the edge of the view
        (50, (190, 200), 170),
    ],
)
def test_the_camera_moves_only_if_it_must(
    center: float, region: tuple[float, float], expected: float
) -> None:
    assert choose_center(center, 30, region, (0, 200)) == pytest.approx(expected)


def test_a_scan_smaller_than_the_view_stays_in_its_middle() -> None:
    assert choose_center(300, 120, (10, 20), (0, 100)) == 50


def test_the_marked_ball_is_round_in_millimeters_and_clipped() -> None:
    box, ball = make_ball((30.0, 6.0, 6.0), (3.0, 0.5, 0.5), (40, 30, 30))
    extent = [span.stop - span.start for span in box]
    assert extent[0] < extent[1] / 3
    assert ball.max() == 1
    box, ball = make_ball((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (4, 4, 4))
    assert all(span.start == 0 and span.stop <= 4 for span in box)
    assert ball[0, 0, 0] == 1
