"""Annotated background is outlined where unannotated voxels begin."""

from __future__ import annotations

import numpy as np

from napari_dycon.core.types import UNANNOTATED
from napari_dycon.project.models import classes_from_names
from napari_dycon.widgets.layers.colormaps import (
    BACKGROUND_OUTLINE,
    build_label_colormap,
    find_outline_values,
)
from napari_dycon.widgets.layers.label_layer import CaseLabels
from napari_dycon.widgets.layers.napari_internals import find_borders


def make_layer(label: np.ndarray, names: list[str]) -> CaseLabels:
    colormap = build_label_colormap(classes_from_names(names), show_unannotated=False)
    image = np.zeros((1, *label.shape))
    layer = CaseLabels(label[None], image=image, colormap=colormap)
    layer.contour = 1
    return layer


def draw(label: np.ndarray, names: list[str]) -> tuple[np.ndarray, int]:
    """Values that are shown, and that of the outline of background."""
    layer = make_layer(label, names)
    drawn = layer.draw_outline(label, find_borders(label, 1), (0, 0))
    return drawn, int(find_outline_values(layer.colormap)[0])


def test_background_is_outlined_beside_unannotated_voxels_only() -> None:
    label = np.full((9, 12), UNANNOTATED, np.uint8)
    label[1:8, 1:11] = 0
    label[3:6, 4:8] = 1
    drawn, outline = draw(label, ["a", "b"])
    expected = np.zeros(label.shape, bool)
    expected[1:8, 1:11] = True
    expected[2:7, 2:10] = False
    np.testing.assert_array_equal(drawn == outline, expected)
    assert (drawn[label == UNANNOTATED] == UNANNOTATED).all()


def test_completed_scans_have_no_outline_of_background() -> None:
    label = np.zeros((9, 12), np.uint8)
    label[3:6, 4:8] = 1
    drawn, outline = draw(label, ["a"])
    assert not (drawn == outline).any()


def test_the_outline_has_no_value_of_a_structure() -> None:
    classes = classes_from_names([f"structure {n}" for n in range(100)])
    colormap = build_label_colormap(classes, show_unannotated=False)
    value = int(find_outline_values(colormap)[0])
    values = {c.value for c in classes}
    assert value not in values | {0, UNANNOTATED}
    np.testing.assert_allclose(colormap.color_dict[value], BACKGROUND_OUTLINE)


def test_without_a_free_value_there_is_no_outline() -> None:
    classes = classes_from_names([f"structure {n}" for n in range(200)])
    assert find_outline_values(build_label_colormap(classes, show_unannotated=False))[0] == 0
