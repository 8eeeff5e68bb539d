"""Annotated background is outlined where unannotated voxels begin."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dycon.core.types import UNANNOTATED
from napari_dycon.project.models import classes_from_names
from napari_dycon.widgets.layers.colormaps import (
    BACKGROUND_DOTS,
    build_label_colormap,
    find_background_dots,
)
from napari_dycon.widgets.layers.label_layer import CaseLabels
from napari_dycon.widgets.layers.napari_layers import find_borders


def make_layer(label: np.ndarray, names: list[str]) -> CaseLabels:
    colormap = build_label_colormap(classes_from_names(names), show_unannotated=False)
    image = np.zeros((1, *label.shape))
    layer = CaseLabels(label[None], image=image, colormap=colormap)
    layer.contour = 1
    return layer


def draw(
    label: np.ndarray, names: list[str], origin: tuple[int, int] = (0, 0)
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Values that are shown, and those of the outline of background."""
    layer = make_layer(label, names)
    drawn = layer.draw_outline(label, find_borders(label, 1), origin)
    return drawn, find_background_dots(layer.colormap)


def test_background_is_outlined_beside_unannotated_voxels_only() -> None:
    label = np.full((9, 12), UNANNOTATED, np.uint8)
    label[1:8, 1:11] = 0
    label[3:6, 4:8] = 1
    drawn, dots = draw(label, ["a", "b"])
    expected = np.zeros(label.shape, bool)
    expected[1:8, 1:11] = True
    expected[2:7, 2:10] = False
    np.testing.assert_array_equal(np.isin(drawn, dots), expected)
    for dot in dots:  # both, in equal parts and in short turns
        assert (drawn == dot).sum() == pytest.approx(expected.sum() / 2, abs=3)
    assert drawn[1, 1] != drawn[1, 2]
    assert drawn[2, 1] != drawn[4, 1]
    assert (drawn[label == UNANNOTATED] == UNANNOTATED).all()


def test_completed_scans_have_no_outline_of_background() -> None:
    label = np.zeros((9, 12), np.uint8)
    label[3:6, 4:8] = 1
    drawn, dots = draw(label, ["a"])
    assert not np.isin(drawn, dots).any()


def test_dots_do_not_move_when_a_part_is_drawn_again() -> None:
    label = np.full((9, 12), UNANNOTATED, np.uint8)
    label[1:8, 1:11] = 0
    whole, _ = draw(label, ["a"])
    part, _ = draw(label[:, 3:], ["a"], (0, 3))
    np.testing.assert_array_equal(part[:, 1:], whole[:, 4:])  # the first column has no neighbor


def test_the_outline_has_no_value_of_a_structure() -> None:
    classes = classes_from_names([f"structure {n}" for n in range(100)])
    colormap = build_label_colormap(classes, show_unannotated=False)
    dots = find_background_dots(colormap)
    values = {c.value for c in classes}
    assert not set(dots) & (values | {0, UNANNOTATED})
    for dot, color in zip(dots, BACKGROUND_DOTS, strict=True):
        np.testing.assert_allclose(colormap.color_dict[dot], color)


def test_without_a_free_value_there_is_no_outline() -> None:
    classes = classes_from_names([f"structure {n}" for n in range(200)])
    assert find_background_dots(build_label_colormap(classes, show_unannotated=False)) == ()
