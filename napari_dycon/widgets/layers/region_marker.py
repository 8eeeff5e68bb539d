"""A circle around the uncertain region that was just shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QObject, QTimer

from napari_dycon.application.hotspots import RADIUS_MM
from napari_dycon.core.types import Array, Box
from napari_dycon.widgets.layers.layer_stack import LayerStack
from napari_dycon.widgets.layers.napari_layers import omit_drawing_visuals

SHOWN_MS = 2000
COLOR = (1.0, 0.25, 1.0, 1.0)
MIN_RADIUS_VOXELS = 2.0  # of coarse scans
LINE_VOXELS = 1
RADIUS_MARGIN_VOXELS = 1.0  # the line lies around the region


class RegionMarker(QObject):
    """Marks a ball for two seconds, or until the label is edited, as a circle in each slice.

    The ball is a layer of labels of which only the contour is drawn: it is then a circle in the
    slices of all axes and views. The layer is kept, since napari takes long to add one.
    """

    def __init__(self, layers: LayerStack) -> None:
        super().__init__(layers)
        self._layers = layers
        self._box: Box | None = None  # of the ball in the layer's array
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(SHOWN_MS)
        self._timer.timeout.connect(self.hide)
        layers.empty_roles.add("marker")
        layers.session.label_edited.connect(self.hide)
        layers.session.case_shown.connect(self.hide)

    def close(self) -> None:
        """Release the session."""
        self._timer.stop()
        self._layers.session.label_edited.disconnect(self.hide)
        self._layers.session.case_shown.disconnect(self.hide)

    def show(self, center_mm: Sequence[float]) -> None:
        """Mark the region around a position in mm."""
        case = self._layers.session.case
        if case is None:
            return
        layer, label = self._layers.find_layer("marker"), self._layers.find_layer("label")
        if label is not None and self.hide not in label.events.paint.callbacks:
            label.events.paint.connect(self.hide)
        with self._layers.suppress_events():
            if layer is None or layer.data.shape != case.label.shape:
                data = np.zeros(case.label.shape, np.uint8)
            else:
                data = layer.data
                if self._box is not None:
                    data[self._box] = 0
            self._box, ball = make_ball(center_mm, case.image.spacing_mm, data.shape)
            data[self._box] = ball
            self._layers.empty_roles.discard("marker")
            if layer is None:
                self._add(data)
            else:
                self._layers.assign_to_case(layer, case, "marker")
                layer.data = data
            self._layers.apply_visibility()
        self._timer.start()

    def hide(self, *_: object) -> None:
        """Hide the circle."""
        self._timer.stop()
        was_shown = "marker" not in self._layers.empty_roles
        self._layers.empty_roles.add("marker")
        layer, case = self._layers.find_layer("marker"), self._layers.session.case
        if layer is None:
            return
        with self._layers.suppress_events():
            if was_shown:  # and not at every movement of the brush
                self._layers.apply_visibility()
            if case is None:
                return
            # Hidden layers also determine the range of napari's sliders.
            if layer.data.shape != case.label.shape:
                layer.data = np.zeros(case.label.shape, np.uint8)
                self._box = None
            self._layers.assign_to_case(layer, case, "marker")

    def _add(self, data: Array) -> None:
        case = self._layers.session.require_case()
        colors: dict[Any, Any] = {None: (0, 0, 0, 0), 0: (0, 0, 0, 0), 1: COLOR}
        layer = Labels(
            data,
            name="region marker",
            colormap=DirectLabelColormap(color_dict=colors),
            **self._layers.build_settings(case, "marker"),
        )
        layer.contour = LINE_VOXELS
        layer.editable = False
        omit_drawing_visuals(layer)
        self._layers.insert(layer)


def make_ball(
    center_mm: Sequence[float], spacing_mm: Sequence[float], shape: Sequence[int]
) -> tuple[Box, Array]:
    """Return the box around a region in an array of ``shape``, and the ball in it (uint8)."""
    radii = [max(RADIUS_MM / s, MIN_RADIUS_VOXELS) + RADIUS_MARGIN_VOXELS for s in spacing_mm]
    center = [c / s for c, s in zip(center_mm, spacing_mm, strict=True)]
    box = tuple(
        slice(max(math.ceil(c - r), 0), min(math.floor(c + r) + 1, n))
        for c, r, n in zip(center, radii, shape, strict=True)
    )
    squared_distance = sum(
        ((axis - c) / r) ** 2 for axis, c, r in zip(np.ogrid[box], center, radii, strict=True)
    )
    return box, np.asarray(squared_distance <= 1).astype(np.uint8)
