"""Colors of labels, uncertainty maps and differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.utils.colormaps import Colormap, DirectLabelColormap

from napari_dycon.core.colormaps import DISAGREEMENT_COLORMAP, UNCERTAINTY_COLORMAP
from napari_dycon.core.types import UNANNOTATED
from napari_dycon.engine.evaluation.label_comparison import ADDED, MISSED, OTHER_STRUCTURE
from napari_dycon.project.models import ClassInfo

TRANSPARENT = (0.0, 0.0, 0.0, 0.0)
UNANNOTATED_TINT = (0.5, 0.5, 0.5, 0.45)
UNCERTAINTY_CMAP = Colormap(UNCERTAINTY_COLORMAP, name="uncertainty")
DISAGREEMENT_CMAP = Colormap(DISAGREEMENT_COLORMAP, name="disagreement")
DIFFERENCE_COLORS = {
    ADDED: (0.2, 0.8, 0.3, 1.0),
    MISSED: (0.95, 0.15, 0.2, 1.0),
    OTHER_STRUCTURE: (1.0, 0.8, 0.0, 1.0),
}


def build_label_colormap(
    classes: Sequence[ClassInfo], show_unannotated: bool
) -> DirectLabelColormap:
    """Build the colormap of a project's structures.

    Unannotated voxels are transparent or tinted.
    """
    colors: dict[Any, Any] = {None: TRANSPARENT, 0: TRANSPARENT}
    colors[UNANNOTATED] = UNANNOTATED_TINT if show_unannotated else TRANSPARENT
    colors.update({c.value: c.color for c in classes})
    return DirectLabelColormap(color_dict=colors)


def build_difference_colormap() -> DirectLabelColormap:
    """Build the colormap: green for added, red for missed voxels, yellow for another structure."""
    colors: dict[Any, Any] = {None: TRANSPARENT, 0: TRANSPARENT}
    colors.update(DIFFERENCE_COLORS)
    return DirectLabelColormap(color_dict=colors)


def have_same_colors(a: Any, b: DirectLabelColormap) -> bool:
    """Whether two label colormaps have the same colors."""
    colors = getattr(a, "color_dict", None)
    if colors is None or set(colors) != set(b.color_dict):
        return False
    return all(np.allclose(colors[key], b.color_dict[key]) for key in colors)
