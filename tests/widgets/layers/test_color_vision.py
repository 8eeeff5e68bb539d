"""Colors are distinguishable with normal vision, protanopia and deuteranopia."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from napari_dycon.core.colormaps import (
    ADDED_COLOR,
    DIFFERENCE_OPACITY,
    DISAGREEMENT_COLORMAP,
    DISAGREEMENT_OPACITY,
    MISSED_COLOR,
    OTHER_STRUCTURE_COLOR,
    parse_color,
)
from napari_dycon.project.models import PALETTE, ClassInfo
from napari_dycon.widgets.layers.colormaps import (
    BACKGROUND_DOTS,
    DARK_DASH,
    build_difference_colormap,
    build_label_colormap,
    build_prediction_colormap,
    find_outline_values,
)

MIN_DIFFERENCE = 20.0
GRAY = 0.5
# Machado, Oliveira and Fernandes 2009, severity 1, for linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
CLASSES = [
    ClassInfo(value=number, name=f"structure {number}", color=color)
    for number, color in enumerate(PALETTE, start=1)
]


def blend(rgba: Any, opacity: float = 1.0, background: float = GRAY) -> Any:
    """Color of an overlay on a gray background, as OpenGL blends it."""
    alpha = float(rgba[3]) * opacity
    return np.asarray(rgba[:3], float) * alpha + background * (1 - alpha)


def simulate(rgb: Any, vision: str) -> Any:
    """CIELAB color as a person with this vision sees it."""
    rgb = np.asarray(rgb, float)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(VISION[vision] @ linear, 0, 1)
    seen = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return rgb2lab(seen[None, None])[0, 0]


def difference(a: Any, b: Any, vision: str) -> float:
    return float(deltaE_ciede2000(simulate(a, vision), simulate(b, vision)))


def list_overlay_colors() -> dict[str, Any]:
    differences = build_difference_colormap().color_dict
    colors = {
        name: blend(differences[value], DIFFERENCE_OPACITY)
        for name, value in (("added", 1), ("missed", 2), ("other structure", 3))
    }
    colors["disagreement"] = blend(DISAGREEMENT_COLORMAP[-1], DISAGREEMENT_OPACITY)
    return colors


def list_structure_colors() -> dict[str, Any]:
    """Fill and outline of each default color, as the label layer shows them."""
    colormap = build_label_colormap(CLASSES, show_unannotated=False)
    outline_values = find_outline_values(colormap)
    colors = {}
    for info in CLASSES:
        colors[f"fill {info.color}"] = blend(colormap.color_dict[info.value])
        colors[f"outline {info.color}"] = blend(
            colormap.color_dict[int(outline_values[info.value])]
        )
    return colors


@pytest.mark.parametrize("vision", VISION)
def test_differences_are_told_from_structures(vision: str) -> None:
    too_similar = [
        (name, other, round(d, 1))
        for name, color in list_overlay_colors().items()
        for other, structure in list_structure_colors().items()
        if (d := difference(color, structure, vision)) < MIN_DIFFERENCE
    ]
    assert too_similar == []


@pytest.mark.parametrize("vision", VISION)
def test_differences_and_disagreement_are_told_from_each_other(vision: str) -> None:
    too_similar = [
        (a, b, round(d, 1))
        for (a, first), (b, second) in itertools.combinations(list_overlay_colors().items(), 2)
        if (d := difference(first, second, vision)) < MIN_DIFFERENCE
    ]
    assert too_similar == []


def test_structures_are_told_from_each_other() -> None:
    outlines = [parse_color(color) for color in PALETTE]
    for a, b in itertools.combinations(outlines, 2):
        assert difference(a, b, "normal") > 19
        assert min(difference(a, b, vision) for vision in VISION) > 6


def test_the_test_finds_colors_that_are_too_similar() -> None:
    """The former colors: green beside bluish green, and green beside red for a deuteranope."""
    added, missed, structure = (0.2, 0.8, 0.3, 0.6), (0.95, 0.15, 0.2, 0.6), "#009e73"
    assert difference(blend(added), blend((*parse_color(structure), 0.6)), "normal") < 20
    assert difference(blend(added), blend(missed), "deuteranopia") < 20
    assert difference(blend(added), blend(missed), "normal") > 60


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("scan", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_overlays_show_on_dark_and_bright_scans(scan: float, vision: str) -> None:
    background = [scan] * 3
    for value, color in ((1, ADDED_COLOR), (2, MISSED_COLOR), (3, OTHER_STRUCTURE_COLOR)):
        shown = blend((*color, 1.0), DIFFERENCE_OPACITY, scan)
        assert difference(shown, background, vision) > 10, value
    # One of the two dashes of a prediction, whatever its structure.
    dashes = build_prediction_colormap(CLASSES).color_dict
    for info in CLASSES:
        contrast = [
            difference(dashes[value][:3], background, vision) for value in (info.value, DARK_DASH)
        ]
        assert max(contrast) > 25


@pytest.mark.parametrize("vision", VISION)
def test_predictions_are_told_from_labels(vision: str) -> None:
    """Both dashes differ from the label's outline of the same structure."""
    dashes = build_prediction_colormap(CLASSES).color_dict
    for info in CLASSES:
        for value in (info.value, DARK_DASH):
            assert difference(dashes[value][:3], parse_color(info.color), vision) > 15


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("scan", np.linspace(0, 1, 9))
def test_the_outline_of_background_shows_on_any_scan(scan: float, vision: str) -> None:
    contrast = [difference(dot[:3], [scan] * 3, vision) for dot in BACKGROUND_DOTS]
    assert max(contrast) > 25


@pytest.mark.parametrize("vision", VISION)
def test_the_outline_of_background_is_told_from_structures_and_predictions(vision: str) -> None:
    light, dark = (dot[:3] for dot in BACKGROUND_DOTS)
    assert difference(light, dark, vision) > 40
    dashes = build_prediction_colormap(CLASSES).color_dict
    for info in CLASSES:
        for dot in (light, dark):
            assert difference(dot, parse_color(info.color), vision) > MIN_DIFFERENCE
        assert difference(light, dashes[info.value][:3], vision) > 10


@pytest.mark.parametrize("vision", VISION)
def test_dashes_of_a_prediction_show_inside_its_own_label(vision: str) -> None:
    """The fill of the label lies over them."""
    fills = build_label_colormap(CLASSES, show_unannotated=False).color_dict
    dashes = build_prediction_colormap(CLASSES).color_dict
    for info in CLASSES:
        fill = fills[info.value]
        around = blend(fill)
        for value in (info.value, DARK_DASH):
            dash = blend(fill, background=np.asarray(dashes[value][:3]))  # type: ignore[arg-type]
            assert difference(dash, around, vision) > 15, info.color
