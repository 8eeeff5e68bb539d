"""Lines of charts are visible on the backgrounds of both themes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from napari.utils.theme import get_theme
from qtpy.QtGui import QColor
from skimage.color import deltaE_ciede2000, rgb2lab

from napari_dycon.widgets.train.curves import CURVES
from napari_dycon.widgets.train.history import COLORS
from napari_dycon.widgets.window.contrast import (
    MIN_GRAPHICS_CONTRAST,
    adapt_to_background,
    contrast_ratio,
)

MIN_DELTA_E = 10.0  # seen at a glance


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_lines_of_charts_have_contrast_and_differ(theme: str) -> None:
    background = get_theme(theme).background.as_hex()
    colors = [adapt_to_background(color, background) for color in COLORS]
    colors_of_curves = [adapt_to_background(color, background) for _, color, *_ in CURVES]
    for color in (*colors, *colors_of_curves):
        assert contrast_ratio(color, background) >= MIN_GRAPHICS_CONTRAST
    for one, other in itertools.combinations(colors, 2):
        lab = [rgb2lab(np.array(QColor(color).getRgbF()[:3])) for color in (one, other)]
        assert deltaE_ciede2000(*lab) >= MIN_DELTA_E, (one, other)


def test_a_color_with_contrast_stays() -> None:
    assert adapt_to_background("#56b4e9", "#262930") == "#56b4e9"
    assert contrast_ratio("#56b4e9", "#ffffff") < MIN_GRAPHICS_CONTRAST  # which is why it adapts
    assert adapt_to_background("#56b4e9", "#ffffff") != "#56b4e9"
