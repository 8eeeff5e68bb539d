"""Planes, letters at their edges, and the mapping of millimeters to pixels."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dycon.widgets.views.annotations import choose_scale_bar
from napari_dycon.widgets.views.planes import (
    EdgeLetters,
    Plane,
    choose_radiological_plane,
    compute_edge_letters,
    describe_direction,
)
from napari_dycon.widgets.views.view import PlaneGeometry

# Canonical axes: superior, posterior, left; columns are their directions in RAS.
STRAIGHT = np.array([[0, 0, -2.0, 0], [0, -1.0, 0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])


def rotate_about_left_right(degrees: float) -> np.ndarray:
    """Turn the patient's axes about the left-right direction."""
    angle = np.deg2rad(degrees)
    rotation = np.eye(4)
    rotation[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return rotation @ STRAIGHT


def test_letters_follow_radiological_convention() -> None:
    assert compute_edge_letters(STRAIGHT, Plane.AXIAL) == EdgeLetters("R", "L", "A", "P")
    assert compute_edge_letters(STRAIGHT, Plane.CORONAL) == EdgeLetters("R", "L", "S", "I")
    assert compute_edge_letters(STRAIGHT, Plane.SAGITTAL) == EdgeLetters("A", "P", "S", "I")


def test_oblique_planes_have_two_letters() -> None:
    slightly, clearly = rotate_about_left_right(8), rotate_about_left_right(25)
    assert compute_edge_letters(slightly, Plane.SAGITTAL) == EdgeLetters("A", "P", "S", "I")
    letters = compute_edge_letters(clearly, Plane.SAGITTAL)
    assert (letters.left, letters.right) == ("AS", "PI")
    assert (letters.top, letters.bottom) == ("SP", "IA")
    assert describe_direction(np.array([0.8, 0.0, -0.6])) == "RI"


@pytest.mark.parametrize(
    ("previous", "order", "expected"),
    [
        (Plane.AXIAL, (2, 0, 1), Plane.SAGITTAL),
        (Plane.SAGITTAL, (1, 2, 0), Plane.CORONAL),
        (Plane.CORONAL, (2, 1, 0), Plane.AXIAL),
        (Plane.AXIAL, (0, 2, 1), Plane.AXIAL),  # transposed
        (Plane.CORONAL, (1, 2, 0), Plane.CORONAL),
    ],
)
def test_rolling_the_axes_goes_through_all_planes(
    previous: Plane, order: tuple[int, ...], expected: Plane
) -> None:
    assert choose_radiological_plane(order, previous) is expected


def test_pixels_and_millimeters_are_inverse() -> None:
    for is_upward in (True, False):
        geometry = PlaneGeometry((40.0, 60.0), (300, 500), 2.5, is_upward)
        x, y = geometry.to_pixel(52.0, 44.0)
        assert geometry.to_mm(x, y) == pytest.approx((52.0, 44.0))
        assert x == pytest.approx(250 - 16 * 2.5)
        assert (y < 150) == is_upward  # a larger coordinate


@pytest.mark.parametrize(
    ("zoom", "pixels", "text"),
    [(2.0, 100.0, "50 mm"), (2.0, 99.0, "20 mm"), (0.5, 100.0, "20 cm"), (100.0, 60.0, "0.5 mm")],
)
def test_scale_bars_are_round_and_fit(zoom: float, pixels: float, text: str) -> None:
    bar = choose_scale_bar(zoom, pixels)
    assert bar is not None
    assert bar.text == text
    assert bar.length_px <= pixels


def test_there_is_no_scale_bar_before_the_first_zoom() -> None:
    assert choose_scale_bar(0.0, 100.0) is None
