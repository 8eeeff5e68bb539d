"""Keeps label and scan of a case in napari's list, whatever is done there.

napari's menus convert, split, duplicate, move and remove layers. Strokes are saved from the array
of the label layer, so that this layer has to stay, in its place over the scan, and no copy of it
may be mistaken for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Layer
from qtpy.QtCore import QObject, QTimer

from napari_dycon.widgets.layers.layer_stack import METADATA_KEY, LayerStack
from napari_dycon.widgets.layers.napari_layers import set_locked

KEPT_ROLES = ("image", "label")
TRANSFORM_EVENTS = ("scale", "translate", "rotate", "shear", "affine")
REMOVED_TEXT = (
    "The {name} belongs to the case and stays in the list. Hide it with the eye in the layer list."
)
CONVERTED_TEXT = "The {name} cannot be converted; nothing was changed. Duplicate it first."
COPIED_TEXT = "The copy of the label is not saved with the case. It cannot be edited."
MOVED_TEXT = "The {name} belongs to the case and cannot be moved, rotated or scaled."


class LayerGuard(QObject):
    """Restores the layers of the active case, and separates copies of them from the case."""

    def __init__(self, layers: LayerStack) -> None:
        super().__init__(layers)
        self._layers = layers
        self._viewer = layers.viewer
        self._removed: list[tuple[int, Layer]] = []  # index and layer, in order of removal
        self._derived: list[Layer] = []  # inserted since then, such as results of a conversion
        self._restore_timer = QTimer(self)  # napari's action completes first
        self._restore_timer.setSingleShot(True)
        self._restore_timer.timeout.connect(self._restore)
        self._viewer.layers.events.inserted.connect(self._on_inserted)
        self._viewer.layers.events.removed.connect(self._on_removed)

    def close(self) -> None:
        """Release the viewer."""
        self._restore_timer.stop()
        self._viewer.layers.events.inserted.disconnect(self._on_inserted)
        self._viewer.layers.events.removed.disconnect(self._on_removed)

    def protect(self, layer: Layer) -> None:
        """Keep a label or scan that was added by the program in its place.

        napari's menus then do not offer to delete or convert it.
        """
        set_locked(layer, True)
        for name in TRANSFORM_EVENTS:
            getattr(layer.events, name).connect(self._on_transformed)

    def _on_inserted(self, event: Any) -> None:
        layer = event.value
        identity = layer.metadata.get(METADATA_KEY, {})
        if self._layers.is_suppressed or "role" not in identity:
            return
        # The dictionary is shared with the layer that this one was made from.
        layer.metadata = {
            **layer.metadata,
            METADATA_KEY: {key: value for key, value in identity.items() if key != "role"},
        }
        set_locked(layer, False)
        layer.editable = False
        if self._removed:
            self._derived.append(layer)
        else:
            self._restore_timer.start()  # the label is selected again
            if identity["role"] == "label":
                self._layers.session.message.emit("info", COPIED_TEXT)

    def _on_removed(self, event: Any) -> None:
        layer, role = event.value, event.value.metadata.get(METADATA_KEY, {}).get("role")
        if (
            self._layers.is_suppressed
            or role not in KEPT_ROLES
            or self._layers.session.case is None
        ):
            return
        self._layers.session.save_label()
        self._removed.append((event.index, layer))
        self._restore_timer.start()

    def _restore(self) -> None:
        """Put removed layers back, remove what they were converted to, and select the label."""
        removed, derived = self._removed, self._derived
        self._removed, self._derived = [], []
        case = self._layers.session.case
        with self._layers.suppress_events():
            for layer in derived:
                if layer in self._viewer.layers:
                    self._viewer.layers.remove(layer)
            for index, layer in reversed(removed):
                is_current = layer.metadata[METADATA_KEY]["case"] == (case.id if case else None)
                if is_current and layer not in self._viewer.layers:
                    self._viewer.layers.insert(min(index, len(self._viewer.layers)), layer)
        label = self._layers.find_layer("label")
        if label is not None:
            self._viewer.layers.selection.active = label
        if removed:
            text = CONVERTED_TEXT if derived else REMOVED_TEXT
            self._layers.session.message.emit("warning", text.format(name=_describe(removed[0][1])))

    def _on_transformed(self, event: Any) -> None:
        """Undo a move, rotation or scaling by napari's own tool."""
        layer, case = event.source, self._layers.session.case
        if self._layers.is_suppressed or case is None or is_in_place(layer, case.image.spacing_mm):
            return
        with self._layers.suppress_events():
            layer.affine = np.eye(layer.ndim + 1)
            layer.rotate = np.eye(layer.ndim)
            layer.shear = np.zeros(3)
            layer.translate = np.zeros(layer.ndim)
            layer.scale = case.image.spacing_mm
        self._layers.session.message.emit("warning", MOVED_TEXT.format(name=_describe(layer)))


def is_in_place(layer: Layer, spacing_mm: Any) -> bool:
    """Whether a layer lies on the grid of the scan."""
    return bool(
        np.allclose(layer.scale, spacing_mm)
        and not np.any(layer.translate)
        and np.allclose(layer.rotate, np.eye(layer.ndim))
        and not np.any(layer.shear)
        and np.allclose(np.asarray(layer.affine.affine_matrix), np.eye(layer.ndim + 1))
    )


def _describe(layer: Layer) -> str:
    return "label" if layer.metadata[METADATA_KEY]["role"] == "label" else "scan"
