"""Colors of labels, predictions, uncertainty maps and differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.utils.colormaps import Colormap, DirectLabelColormap

from napari_dycon.core.colormaps import (
    ADDED_COLOR,
    DISAGREEMENT_COLORMAP,
    MISSED_COLOR,
    OTHER_STRUCTURE_COLOR,
    UNCERTAINTY_COLORMAP,
    parse_color,
)
from napari_dycon.core.types import UNANNOTATED
from napari_dycon.engine.evaluation.label_comparison import ADDED, MISSED, OTHER_STRUCTURE
from napari_dycon.project.models import ClassInfo

TRANSPARENT = (0.0, 0.0, 0.0, 0.0)
UNANNOTATED_TINT = (0.5, 0.5, 0.5, 0.45)
# Dots of the outline of annotated background, beside unannotated voxels. One of the two is visible
# on any scan.
BACKGROUND_DOTS = ((0.78, 0.72, 1.0, 1.0), (0.15, 0.1, 0.3, 1.0))
UNCERTAINTY_CMAP = Colormap(UNCERTAINTY_COLORMAP, name="uncertainty")
DISAGREEMENT_CMAP = Colormap(DISAGREEMENT_COLORMAP, name="disagreement")
FILL_OPACITY = 0.35  # of the inside of labels, relative to their outline
PREDICTION_WHITENESS = 0.9  # share of white in the light dashes of predictions
SURFACE_WHITENESS = 0.35  # the same in the surfaces of predictions
DARK_DASH = 255  # value that predictions do not have; color of their dark dashes
DARK_DASH_COLOR = (0.05, 0.05, 0.05, 1.0)
OPAQUE = 1.0
SHADOW, HIGHLIGHT = 0.45, 0.35  # darkest and brightest parts of surfaces
HIGHLIGHT_FROM = 0.75  # brightness at which a surface has the color of its structure
DIFFERENCE_COLORS = {
    ADDED: ADDED_COLOR,
    MISSED: MISSED_COLOR,
    OTHER_STRUCTURE: OTHER_STRUCTURE_COLOR,
}


def build_label_colormap(
    classes: Sequence[ClassInfo], show_unannotated: bool, fill_opacity: float = FILL_OPACITY
) -> DirectLabelColormap:
    """Build the colormap of a label: inside and outline of each structure.

    The outline of structure ``v`` has the value ``255 - v`` in the colormap, unless a structure
    of the project has it; ``find_outline_values`` finds it by its opacity. Unannotated voxels are
    transparent or tinted. The dots that outline annotated background have values that are still
    free; without two of them there is no outline.
    """
    values = {c.value for c in classes}
    colors: dict[Any, Any] = {None: TRANSPARENT, 0: TRANSPARENT}
    colors[UNANNOTATED] = UNANNOTATED_TINT if show_unannotated else TRANSPARENT
    for info in classes:
        color = parse_color(info.color)
        has_outline = UNANNOTATED - info.value not in values
        colors[info.value] = (*color, min(fill_opacity, 0.99) if has_outline else 0.99)
        if has_outline:
            colors[UNANNOTATED - info.value] = (*color, OPAQUE)
    free_values = [v for v in range(UNANNOTATED - 1, 0, -1) if v not in colors]
    if len(free_values) >= len(BACKGROUND_DOTS):
        colors.update(zip(free_values, BACKGROUND_DOTS, strict=False))
    return DirectLabelColormap(color_dict=colors)


def find_outline_values(colormap: Any) -> npt.NDArray[np.uint8]:
    """Values that display the outline of each value, ``(256,)``; the value itself without one."""
    outline_values = np.arange(256, dtype=np.uint8)
    colors = getattr(colormap, "color_dict", {})
    for value in range(1, UNANNOTATED):
        outline = colors.get(UNANNOTATED - value)
        if outline is not None and value in colors and float(outline[3]) == OPAQUE:
            outline_values[value] = UNANNOTATED - value
    return outline_values


def find_background_dots(colormap: Any) -> tuple[int, ...]:
    """Values of the light and the dark dots that outline background; empty without an outline."""
    colors = getattr(colormap, "color_dict", {})
    values = [
        next((v for v, c in colors.items() if v is not None and np.allclose(c, dot)), None)
        for dot in BACKGROUND_DOTS
    ]
    found = tuple(int(value) for value in values if value is not None)
    return found if len(found) == len(BACKGROUND_DOTS) else ()


def build_proposal_colormap(classes: Sequence[ClassInfo]) -> DirectLabelColormap:
    """Build a colormap with the opaque colors of the structures."""
    colors: dict[Any, Any] = {None: TRANSPARENT, 0: TRANSPARENT, UNANNOTATED: TRANSPARENT}
    colors.update({c.value: c.color for c in classes})
    return DirectLabelColormap(color_dict=colors)


def build_prediction_colormap(classes: Sequence[ClassInfo]) -> DirectLabelColormap:
    """Build the colormap of a prediction's dashes: light variants of the structures, and dark."""
    colors: dict[Any, Any] = {None: TRANSPARENT, 0: TRANSPARENT, DARK_DASH: DARK_DASH_COLOR}
    for info in classes:
        colors[info.value] = (*lighten(parse_color(info.color)), OPAQUE)
    return DirectLabelColormap(color_dict=colors)


def lighten(
    color: Sequence[float], whiteness: float = PREDICTION_WHITENESS
) -> tuple[float, float, float]:
    """Mix a color with white, as for predictions."""
    red, green, blue = (c + whiteness * (1 - c) for c in color)
    return red, green, blue


def shade(color: Sequence[float], brightness: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Shade a color by brightness ``(n,)`` from 0 to 1; the result is RGBA ``(n, 4)``."""
    steps = (0.0, HIGHLIGHT_FROM, 1.0)
    channels = [
        np.interp(brightness, steps, (SHADOW * c, c, c + HIGHLIGHT * (1 - c))) for c in color
    ]
    return np.stack([*channels, np.full(len(brightness), OPAQUE)], axis=1).astype(np.float32)


def build_difference_colormap() -> DirectLabelColormap:
    """Build the colormap of differences; see ``core.colormaps``."""
    colors: dict[Any, Any] = {None: TRANSPARENT, 0: TRANSPARENT}
    colors.update({value: (*color, OPAQUE) for value, color in DIFFERENCE_COLORS.items()})
    return DirectLabelColormap(color_dict=colors)


def have_same_colors(a: Any, b: DirectLabelColormap) -> bool:
    """Whether two label colormaps have the same colors."""
    colors = getattr(a, "color_dict", None)
    if colors is None or set(colors) != set(b.color_dict):
        return False
    return all(np.allclose(colors[key], b.color_dict[key]) for key in colors)
