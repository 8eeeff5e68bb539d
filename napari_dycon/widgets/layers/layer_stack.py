"""Layers of a case in napari's layer list, identified by role."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Layer
from qtpy.QtCore import QObject, Signal

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.project.models import ClassInfo
from napari_dycon.session import Session

AXIS_LABELS = ("superior", "posterior", "left")
METADATA_KEY = "napari_dycon"
ROLES = (
    "image",
    "uncertainty",
    "disagreement",
    "prediction",
    "difference",
    "proposal",
    "label",
    "roi",
)
HIDDEN_ROLES = ("disagreement", "difference")  # until the user shows them


class LayerStack(QObject):
    """Layers that have a role; other layers of the viewer are not touched.

    ``visible`` and ``opacity`` hold the user's settings for each role, also for later cases.
    """

    visibility_toggled = Signal(str, bool)  # role shown or hidden in napari's list of layers
    axis_changed = Signal(int)  # slices are browsed along this axis in the active view

    def __init__(self, session: Session, viewer: ViewerModel, parent: QObject) -> None:
        super().__init__(parent)
        self.session = session
        self.viewer = viewer
        self.visible = {role: role not in HIDDEN_ROLES for role in ROLES}
        self.opacity = dict.fromkeys(ROLES, 0.6) | {
            "image": 1.0,
            "prediction": 0.4,
            "proposal": 0.9,
            "roi": 1.0,
        }
        self._is_suppressed = False
        self._active_axis: int | None = None  # of the view that was used last

    def find_layer(self, role: str) -> Any:
        """Layer of a role for the active case, or ``None``."""
        for layer in self.viewer.layers:
            if layer.metadata.get(METADATA_KEY, {}).get("role") == role:
                return layer
        return None

    def find_layers(self, role: str) -> list[Any]:
        """Layers of a role, bottom to top."""
        return [
            layer
            for layer in self.viewer.layers
            if layer.metadata.get(METADATA_KEY, {}).get("role") == role
        ]

    def set_visible(self, role: str, visible: bool) -> None:
        """Show or hide one kind of layer, for this and later cases."""
        self.visible[role] = visible
        if (layer := self.find_layer(role)) is not None:
            layer.visible = visible

    def set_opacity(self, role: str, opacity: float) -> None:
        """Set the opacity (0 to 1) of one kind of layer, for this and later cases."""
        self.opacity[role] = opacity
        if (layer := self.find_layer(role)) is not None:
            layer.opacity = opacity

    def build_settings(self, case: ActiveCase, role: str) -> dict[str, Any]:
        """Return the common settings of the layers of a case: scale, units, opacity, metadata."""
        return {
            "scale": case.image.spacing_mm,
            "units": ("mm",) * 3,
            "axis_labels": AXIS_LABELS,
            "metadata": {
                METADATA_KEY: {"case": case.id, "role": role, "source": case.image.source}
            },
            "opacity": self.opacity[role],
            "visible": self.visible[role],
        }

    def assign_to_case(self, layer: Layer, case: ActiveCase, role: str) -> None:
        """Assign a layer to a case: set its scale and metadata."""
        settings = self.build_settings(case, role)
        layer.metadata = settings["metadata"]
        if tuple(layer.scale) != tuple(settings["scale"]):
            layer.scale = settings["scale"]

    def insert(self, layer: Layer, *, on_top: bool = False) -> None:
        """Add a layer below the label, or on top; the selected layer stays selected."""
        label = self.find_layer("label")
        active = self.viewer.layers.selection.active
        index = len(self.viewer.layers)
        if label is not None and not on_top:
            index = self.viewer.layers.index(label)
        self.viewer.layers.insert(index, layer)
        self.viewer.layers.selection.active = active

    def track_visibility(self, layer: Layer) -> None:
        """Remember when a layer is shown or hidden in napari's own list."""

        def on_visible_changed(_: object) -> None:
            role = layer.metadata[METADATA_KEY]["role"]
            if not self._is_suppressed and layer.visible != self.visible[role]:
                self.set_visible(role, layer.visible)
                self.visibility_toggled.emit(role, layer.visible)

        layer.events.visible.connect(on_visible_changed)

    def remove_all(self) -> None:
        """Remove all layers of the case."""
        case_layers = [
            layer for layer in self.viewer.layers if "role" in layer.metadata.get(METADATA_KEY, {})
        ]
        for layer in case_layers:  # scans that were opened as files carry the key, too
            self.viewer.layers.remove(layer)

    def classes(self) -> list[ClassInfo]:
        """Structures of the open project."""
        return self.session.project.classes if self.session.project is not None else []

    @property
    def axis(self) -> int:
        """Axis along which slices are browsed in the active view; the first one in 3D."""
        if self._active_axis is not None and self.viewer.dims.ndisplay == 2:
            return self._active_axis
        return self.main_axis

    @property
    def main_axis(self) -> int:
        """Axis along which slices are browsed in the main view; the first one in 3D."""
        return next(iter(self.viewer.dims.not_displayed), 0)

    def set_active_axis(self, axis: int) -> None:
        """Let commands for a slice act on slices along another axis."""
        if axis != self._active_axis:
            self._active_axis = axis
            self.axis_changed.emit(axis)

    @property
    def slice_index(self) -> int:
        """Index of the current slice along ``axis``."""
        return self.get_slice_index(self.axis)

    def get_slice_index(self, axis: int) -> int:
        """Return the index of the current slice along an axis."""
        case = self.session.case
        if case is None:
            return 0
        index = self.viewer.dims.point[axis] / case.image.spacing_mm[axis]
        return int(np.clip(round(index), 0, case.image.shape[axis] - 1))

    @property
    def is_suppressed(self) -> bool:
        """Whether the program itself is changing layers."""
        return self._is_suppressed

    @contextlib.contextmanager
    def suppress_events(self) -> Iterator[None]:
        """Suppress handlers of user edits while the program itself changes layers."""
        was_suppressed, self._is_suppressed = self._is_suppressed, True
        try:
            yield
        finally:
            self._is_suppressed = was_suppressed
