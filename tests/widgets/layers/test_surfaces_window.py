"""The 3D view in the real window."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_dycon.widgets.layers.surfaces import COMPUTING_TEXT, EMPTY_TEXT

pytestmark = pytest.mark.gui


def surfaces(panel: Any) -> dict[str, Any]:
    return {
        layer.metadata["napari_dycon"]["of"]: layer for layer in panel.layers.find_layers("surface")
    }


def enter(panel: Any, qtbot: Any, roles: set[str]) -> None:
    panel.layers.viewer.dims.ndisplay = 3
    qtbot.waitUntil(lambda: set(surfaces(panel)) == roles, timeout=20_000)
    qtbot.wait(100)  # drawn


def list_visible(layers: Any) -> dict[str, bool]:
    return {layer.name: layer.visible for layer in layers}


def middle(layer: Any) -> Any:
    return (layer.data[0].min(axis=0) + layer.data[0].max(axis=0)) / 2


def test_surfaces_replace_everything_in_3d(
    example_panel: Any, qtbot: Any, save_screenshot: Any
) -> None:
    viewer, panel = example_panel
    layers, session = panel.layers, panel.session
    label = layers.find_layer("label")
    layers.set_brush_3d(True)
    label.brush_size = 7
    label.paint((10, 10, 10), 1)
    label.mode = "paint"
    panel.review.toggles["disagreement"].setChecked(True)
    layers.go_to_slice(6, 0)
    viewer.scene.camera.zoom *= 1.7
    qtbot.wait(200)
    before, ranges, point = list_visible(viewer.layers), viewer.dims.range, viewer.dims.point
    camera = viewer.scene.camera.model_dump(include={"center", "zoom", "orientation"})

    enter(panel, qtbot, {"label", "prediction"})
    assert {layer for layer in viewer.layers if layer.visible} == set(surfaces(panel).values())
    assert np.allclose(middle(surfaces(panel)["label"]), 10, atol=0.5)
    light, lighter = (surfaces(panel)[of].vertex_colors for of in ("label", "prediction"))
    assert lighter[:, :3].mean() > light[:, :3].mean() + 0.1
    assert surfaces(panel)["prediction"].opacity < surfaces(panel)["label"].opacity == 1
    assert viewer.dims.axis_labels == ("superior", "posterior", "left")
    buttons = panel.canvas_area.toolbar.tools.buttons
    assert not buttons["paint"].isEnabled()
    assert not panel.annotate.completion.slice_button.isEnabled()
    save_screenshot(viewer, "surfaces")
    panel.review.toggles["prediction"].setChecked(False)
    assert not surfaces(panel)["prediction"].visible
    panel.review.toggles["prediction"].setChecked(True)
    layers.toggle_overlays()
    assert not any(layer.visible for layer in viewer.layers)
    layers.toggle_overlays()

    viewer.dims.ndisplay = 2
    assert buttons["paint"].isEnabled()
    assert list_visible(viewer.layers) == before  # and no surface is left
    qtbot.wait(200)
    assert list_visible(viewer.layers) == before
    assert viewer.dims.range == ranges  # the sliders are those of the scan
    assert viewer.dims.point == point
    assert viewer.scene.camera.model_dump(include={"center", "zoom", "orientation"}) == camera

    # Painting and undo work, and the next surfaces follow them.
    assert label.mode == "paint"
    label.paint((4, 4, 4), 1)
    label.undo()
    label.undo()
    assert not (session.case.label == 1).any()
    label.paint((14, 12, 12), 1)
    enter(panel, qtbot, {"label", "prediction"})
    assert np.allclose(middle(surfaces(panel)["label"]), (14, 12, 12), atol=0.5)
    label.undo()  # in the 3D view
    session.accept_prediction()
    qtbot.waitUntil(
        lambda: np.allclose(
            middle(surfaces(panel)["label"]), middle(surfaces(panel)["prediction"]), atol=0.1
        ),
        timeout=20_000,
    )


def test_another_case_opens_in_slices(example_panel: Any, qtbot: Any) -> None:
    viewer, panel = example_panel
    layers, session = panel.layers, panel.session
    enter(panel, qtbot, {"prediction"})
    session.show_case("scan-4")  # has neither label nor prediction
    qtbot.waitUntil(lambda: session.case.id == "scan-4", timeout=20_000)
    assert viewer.dims.ndisplay == 2
    assert not surfaces(panel)
    qtbot.wait(300)
    assert layers.find_layer("image").visible
    assert layers.find_layer("label").visible
    viewer.dims.ndisplay = 3
    qtbot.waitUntil(lambda: EMPTY_TEXT in panel.message_label.text(), timeout=20_000)
    assert not any(layer.visible for layer in viewer.layers)
    session.close_project()
    qtbot.wait(200)
    assert viewer.dims.ndisplay == 2
    assert not surfaces(panel)


@pytest.mark.parametrize("plane_button", [0, 1, 2])
def test_the_patient_is_seen_from_the_front(
    opened_panel: Any, qtbot: Any, plane_button: int
) -> None:
    """From the front with the head up, left is on the right, whatever plane was shown before."""
    viewer, panel = opened_panel
    order = {0: (0, 1, 2), 1: (1, 0, 2), 2: (2, 0, 1)}[plane_button]
    viewer.dims.order = order
    qtbot.wait(100)
    layers = panel.layers
    layers.set_brush_3d(True)
    layers.find_layer("label").brush_size = 5
    layers.find_layer("label").paint((10, 10, 10), 1)
    enter(panel, qtbot, {"label", "prediction"})
    assert viewer.dims.order == order
    visual = viewer.window._qt_viewer.canvas.layer_to_visual[surfaces(panel)["label"]]

    def locate(z: float, y: float, x: float) -> Any:
        """Pixel and depth of a voxel in the canvas."""
        displayed = [(z, y, x)[axis] for axis in order]
        place = visual.node.transforms.get_transform("visual", "canvas").map([*displayed[::-1], 1])
        return place[:3] / place[3]

    origin = locate(10, 10, 10)
    superior, posterior, left = (
        locate(*(10 + 4 * (axis == a) for a in range(3))) - origin for axis in range(3)
    )
    assert superior[1] < -1
    assert abs(superior[0]) < 1
    assert left[0] > 1
    assert abs(left[1]) < 1
    assert np.hypot(*posterior[:2]) < 0.2 * left[0]
    # Nearer surfaces hide others: their depth is lower.
    anterior_depth, posterior_depth = locate(10, 6, 10)[2], locate(10, 14, 10)[2]
    assert anterior_depth < posterior_depth
    viewer.dims.ndisplay = 2


def test_another_plane_leaves_3d(example_panel: Any, qtbot: Any) -> None:
    viewer, panel = example_panel
    enter(panel, qtbot, {"prediction"})
    viewer.dims.order = (1, 0, 2)
    assert viewer.dims.ndisplay == 2
    assert not surfaces(panel)
    assert panel.layers.find_layer("image").visible
    assert viewer.scene.camera.orientation2d == ("up", "right")


def test_a_long_computation_is_announced(
    example_panel: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer, panel = example_panel
    said = []
    panel.session.message.connect(lambda _, text: said.append(text))
    monkeypatch.setattr("napari_dycon.widgets.layers.surfaces.PATIENCE_MS", 60_000)
    enter(panel, qtbot, {"prediction"})
    assert COMPUTING_TEXT not in said
    viewer.dims.ndisplay = 2
    monkeypatch.setattr("napari_dycon.widgets.layers.surfaces.PATIENCE_MS", 0)
    enter(panel, qtbot, {"prediction"})
    assert COMPUTING_TEXT in said
    assert COMPUTING_TEXT not in panel.message_label.text()


def test_side_views_keep_their_slices(example_panel: Any, qtbot: Any) -> None:
    viewer, panel = example_panel
    panel.canvas_area.views.show_side_views(True)
    qtbot.wait(1000)  # fitted to their final size
    side = panel.canvas_area.views.side_views[0]
    before = list_visible(side.model.layers)
    camera = side.model.scene.camera.zoom, side.model.scene.camera.center
    enter(panel, qtbot, {"prediction"})
    assert list_visible(side.model.layers) == before
    assert side.model.dims.ndisplay == 2
    panel.review.toggles["uncertainty"].setChecked(False)
    viewer.dims.ndisplay = 2
    qtbot.wait(200)
    assert list_visible(side.model.layers) == before | {"uncertainty": False}
    assert (side.model.scene.camera.zoom, side.model.scene.camera.center) == camera


def test_repeated_changes_of_case_in_and_out_of_3d(example_panel: Any, qtbot: Any) -> None:
    """Removed surfaces crashed the program in OpenGL."""
    viewer, panel = example_panel
    session, layers = panel.session, panel.layers
    rng = np.random.default_rng(0)
    panel.canvas_area.views.show_side_views(True)
    for turn in range(12):
        case_id = f"scan-{turn % 4}"
        if session.case.id != case_id:
            session.show_case(case_id)
            qtbot.waitUntil(lambda case_id=case_id: session.case.id == case_id, timeout=20_000)
        label = layers.find_layer("label")
        label.brush_size = int(rng.integers(3, 12))
        label.paint(tuple(rng.integers(4, 16, 3)), 1)
        if turn % 3 == 0:
            viewer.theme = "light" if viewer.theme == "dark" else "dark"
        viewer.dims.ndisplay = 3
        if turn % 4 != 3:  # otherwise left or changed while surfaces are computed
            qtbot.waitUntil(lambda: "label" in surfaces(panel), timeout=60_000)
            qtbot.wait(int(rng.integers(0, 120)))
            viewer.scene.camera.angles = tuple(rng.integers(0, 180, 3))
        if turn % 5 == 4:
            label.undo()
            session.label_edited.emit(session.case.id)
            qtbot.wait(600)
        if turn % 2:
            viewer.dims.ndisplay = 2
            qtbot.wait(int(rng.integers(0, 120)))
            label.paint(tuple(rng.integers(4, 16, 3)), 1)
            label.undo()
        assert bool(surfaces(panel)) <= (viewer.dims.ndisplay == 3)
    viewer.dims.ndisplay = 2
    qtbot.wait(200)
    assert layers.find_layer("image").visible
    assert not surfaces(panel)
