"""The camera of the 3D view: what is in view, from which side, and what is left of it in slices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.gestures import Gestures

from napari_dycon.widgets.layers.napari_internals import get_main_window

pytestmark = pytest.mark.gui


def enter(gestures: Gestures, roles: int = 2) -> None:
    """Open the 3D view, with the surfaces of a label and of a prediction."""
    label = gestures.panel.layers.find_layer("label")
    gestures.panel.layers.set_brush_3d(True)
    label.brush_size = 7
    label.paint((5, 15, 4), 1)
    gestures.panel.layers.set_brush_3d(False)
    gestures.viewer.dims.ndisplay = 3
    wait_for_surfaces(gestures, roles)


def wait_for_surfaces(gestures: Gestures, roles: int = 2) -> None:
    find = gestures.panel.layers.find_layers
    gestures.qtbot.waitUntil(lambda: len(find("surface")) == roles, timeout=20_000)
    gestures.qtbot.wait(150)


def find_surface(gestures: Gestures, role: str) -> Any:
    return next(
        layer
        for layer in gestures.panel.layers.find_layers("surface")
        if layer.metadata["napari_dycon"]["of"] == role
    )


def locate_vertices(gestures: Gestures) -> Any:
    """Pixels of all vertices in the main canvas, (n, 2)."""
    canvas = gestures.viewer.window._qt_viewer.canvas
    order, pixels = list(gestures.viewer.dims.order), []
    for layer in gestures.panel.layers.find_layers("surface"):
        transform = canvas.layer_to_visual[layer].node.transforms.get_transform("visual", "canvas")
        vertices = np.asarray(layer.data[0])[:, order][:, ::-1]
        places = transform.map(np.c_[vertices, np.ones(len(vertices))])
        pixels.append(places[:, :2] / places[:, 3:])
    return np.concatenate(pixels)


def assert_all_in_view(gestures: Gestures) -> None:
    """Everything is in view, and fills a good part of it."""
    canvas = gestures.views.main_view.canvas
    pixels, size = locate_vertices(gestures), np.array([canvas.width(), canvas.height()])
    assert (pixels >= 0).all()
    assert (pixels <= size).all()
    assert np.ptp(pixels, axis=0).max() > 0.4 * min(size)


def resize(gestures: Gestures, width: int, height: int) -> None:
    get_main_window(gestures.viewer).resize(width, height)
    gestures.qtbot.wait(500)


def wait_for_fitted_slices(gestures: Gestures) -> None:
    view, case = gestures.views.main_view, gestures.session.case

    def check() -> bool:
        fractions = [
            case.image.shape[axis] * case.image.spacing_mm[axis] * view.geometry.zoom / pixels
            for axis, pixels in zip(
                view.plane.displayed_axes, (view.canvas.height(), view.canvas.width()), strict=True
            )
        ]
        return bool(max(fractions) == pytest.approx(0.95, abs=0.01))

    gestures.qtbot.waitUntil(check, timeout=5_000)


def test_everything_stays_in_view_when_the_window_is_resized(gestures: Gestures) -> None:
    enter(gestures)
    assert_all_in_view(gestures)
    gestures.viewer.scene.camera.angles = (20, 40, 60)
    for size in ((1000, 600), (1500, 950), (1366, 768)):
        resize(gestures, *size)
        assert_all_in_view(gestures)
    assert gestures.viewer.scene.camera.angles == pytest.approx((20, 40, 60))


def test_3d_opens_and_leaves_fitted_after_a_resize(gestures: Gestures) -> None:
    for size in ((1000, 600), (1500, 950)):
        resize(gestures, *size)
        enter(gestures)
        assert_all_in_view(gestures)
        gestures.viewer.dims.ndisplay = 2
        gestures.qtbot.wait(200)
        wait_for_fitted_slices(gestures)
    enter(gestures)
    resize(gestures, 1100, 700)  # while 3D is open
    gestures.panel.canvas_area.toolbar.linked_button.click()
    gestures.qtbot.wait(200)
    gestures.viewer.dims.ndisplay = 2
    gestures.qtbot.wait(300)
    wait_for_fitted_slices(gestures)
    resize(gestures, 1366, 768)


def test_the_zoom_of_the_user_is_kept(gestures: Gestures) -> None:
    enter(gestures)
    camera = gestures.viewer.scene.camera
    camera.zoom *= 2
    zoom = camera.zoom
    gestures.qtbot.wait(100)
    resize(gestures, 1100, 700)
    assert camera.zoom == pytest.approx(zoom)
    resize(gestures, 1366, 768)


def test_fit_shows_the_patient_from_the_front(gestures: Gestures) -> None:
    enter(gestures)
    view, camera = gestures.views.main_view, gestures.viewer.scene.camera
    front = camera.angles
    letters = view.annotations.content.letters
    assert (letters.top, letters.bottom, letters.left, letters.right) == ("S", "I", "R", "L")
    camera.angles = (10, -70, 130)
    camera.zoom *= 3
    camera.center = (0, 0, 0)
    gestures.qtbot.wait(100)
    assert view.annotations.content.letters != letters
    gestures.panel.canvas_area.toolbar.reset_button.click()
    gestures.qtbot.wait(150)
    assert camera.angles == pytest.approx(front)
    assert view.annotations.content.letters == letters
    assert_all_in_view(gestures)


@pytest.mark.parametrize(
    ("view", "up", "expected"),
    [
        ((1, 0, 0), (0, -1, 0), ("A", "R")),  # from the feet, as axial slices but mirrored
        ((-1, 0, 0), (0, -1, 0), ("A", "L")),  # from the head
        ((0, 0, -1), (1, 0, 0), ("S", "A")),  # from the patient's left
    ],
)
def test_letters_follow_the_camera(
    gestures: Gestures, view: Any, up: Any, expected: tuple[str, str]
) -> None:
    enter(gestures)
    gestures.viewer.scene.camera.set_view_direction(view_direction=view, up_direction=up)
    gestures.qtbot.wait(100)
    letters = gestures.views.main_view.annotations.content.letters
    places = {
        letter: next(axis for axis in (0, 1, 2) if letter in ("SI", "AP", "LR")[axis])
        for letter in (letters.top, letters.right)
    }
    assert letters.top == expected[0]
    # Independent of our own geometry: where vertices of larger coordinates are drawn.
    transform = gestures.viewer.window._qt_viewer.canvas.layer_to_visual[
        find_surface(gestures, "label")
    ].node.transforms.get_transform("visual", "canvas")
    origin, step = np.full(3, 8.0), np.zeros(3)
    step[places[letters.right]] = 4.0 if letters.right in "SPL" else -4.0
    order = list(gestures.viewer.dims.order)
    ends = [transform.map([*p[order][::-1], 1.0])[:2] for p in (origin, origin + step)]
    assert ends[1][0] > ends[0][0]


def test_surfaces_are_bright_in_their_own_colors(gestures: Gestures) -> None:
    enter(gestures)
    label, prediction = (find_surface(gestures, role) for role in ("label", "prediction"))
    color = np.array(
        [int(gestures.session.project.classes[0].color[i : i + 2], 16) for i in (1, 3, 5)]
    )
    for surface in (label, prediction):
        brightness = surface.vertex_colors[:, :3].max(axis=1)
        assert brightness.min() >= 0.4 * color.max() / 255
        assert np.median(brightness) >= 0.7 * color.max() / 255
        # The largest channel of each vertex is that of the structure.
        assert (surface.vertex_colors[:, :3].argmax(axis=1) == color.argmax()).all()
    assert (label.opacity, prediction.opacity) == (1.0, 0.5)
    gestures.panel.review.toggles["label"].setChecked(False)
    assert prediction.opacity == 1.0  # nothing behind it
    gestures.panel.review.toggles["label"].setChecked(True)
    assert prediction.opacity == 0.5


def test_surfaces_keep_their_names_when_they_follow_an_edit(gestures: Gestures) -> None:
    enter(gestures)
    before = find_surface(gestures, "label")
    gestures.session.fill_background(3, 0)
    gestures.qtbot.waitUntil(lambda: find_surface(gestures, "label") is not before, timeout=20_000)
    wait_for_surfaces(gestures)
    names = {layer.name for layer in gestures.panel.layers.find_layers("surface")}
    assert names == {"label (3D)", "prediction (3D)"}
