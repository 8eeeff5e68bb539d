"""Outlines of label and prediction are those of the main view in every view."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.gestures import Gestures
from napari.layers import Labels

from napari_dycon.widgets.layers.label_layer import CaseLabels, PredictedLabels
from napari_dycon.widgets.views.layer_mirror import copy_layer

pytestmark = pytest.mark.gui


def test_the_outline_of_the_label_is_drawn_in_all_views(gestures: Gestures) -> None:
    for view in gestures.views.views:
        contours = [layer.contour for layer in view.model.layers if isinstance(layer, CaseLabels)]
        assert contours == [1]


@pytest.mark.parametrize("layer_class", [Labels, PredictedLabels])
def test_a_copy_has_the_outline_of_its_layer(layer_class: type[Labels]) -> None:
    layer = layer_class(np.ones((4, 5, 6), np.uint8))
    layer.contour = 2
    layer_copy = copy_layer(layer)
    assert isinstance(layer_copy, Labels)
    assert layer_copy.contour == 2
