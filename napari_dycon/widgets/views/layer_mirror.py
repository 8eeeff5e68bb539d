"""Copies of the layers of the main view in another view, over the same voxels.

A napari layer holds the slice that is displayed, so a second view needs a layer of its own. Both
share the array, the undo history and the limits of the brush: painting in one view is an edit in
all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from napari.components import ViewerModel
from napari.layers import Labels, Layer
from qtpy.QtCore import QObject, QTimer, Signal

from napari_dycon.widgets.layers.label_layer import CaseLabels
from napari_dycon.widgets.layers.napari_layers import (
    ExtensibleLabels,
    StructureSurface,
    omit_drawing_visuals,
    share_history,
)
from napari_dycon.widgets.layers.roi_layer import RoiLayer

# Properties that a copy takes over; only those that its type of layer has. ``scale`` comes before
# ``data``, so that a copy never shows a new scan on the grid of the previous one.
COPIED_PROPERTIES = (
    "scale",
    "data",
    "contrast_limits_range",
    "contrast_limits",
    "gamma",
    "colormap",
    "interpolation2d",
    "blending",
    "opacity",
    "contour",
    "visible",
    "editable",
    "name",
)
# Settings of tools, which can be changed in any view.
SHARED_PROPERTIES = (
    "selected_label",
    "n_edit_dimensions",
    "brush_size",
    "contiguous",
    "preserve_labels",
    "show_selected_label",
    "mode",
)
EDIT_EVENTS = ("labels_update", "paint", "edited")
MAX_TURN_S = 0.01  # for copying properties, before the window reacts to events again
EDIT_INTERVAL_MS = 40  # between updates of the other views during a stroke
SPATIAL_DIMENSIONS = 3
Connection = tuple[Any, Callable[..., None]]  # an emitter and its handler


class LayerMirror(QObject):
    """Keeps copies of the layers of ``source`` in ``target``.

    Changes are applied in the next iteration of the event loop, so that several changes at once,
    as for a new case, update the other view once.

    Parameters
    ----------
    is_shown_in_slices : whether slices show a layer that the 3D view hides; ``None`` if that does
        not change while the 3D view is open
    """

    filled = Signal()  # the first layer was copied

    def __init__(
        self,
        source: ViewerModel,
        target: ViewerModel,
        parent: QObject,
        is_shown_in_slices: Callable[[Layer], bool | None],
    ) -> None:
        super().__init__(parent)
        self._is_shown_in_slices = is_shown_in_slices
        self._source, self._target = source, target
        self._copies: dict[Layer, Layer] = {}
        self._connections: dict[Layer, list[Connection]] = {}
        self._uncopied: list[Layer] = []  # added, but not yet here
        self._pending: dict[Layer, set[str]] = {}
        self._edited: set[Layer] = set()  # layers that must be redrawn
        self._is_applying = False
        self._batch: Literal["none", "started", "used"] = "none"  # of changes to the source
        self._add_timer = self._make_timer(0, self._add_next)
        self._change_timer = self._make_timer(0, self._apply_changes)
        self._edit_timer = self._make_timer(EDIT_INTERVAL_MS, self._redraw_edited)
        self._layer_events = (
            (source.layers.events.inserted, self._on_inserted),
            (source.layers.events.removed, self._on_removed),
            (source.layers.events.reordered, self._on_reordered),
            (source.layers.selection.events.active, self._on_active_changed),
            (source.dims.events.ndisplay, self._on_ndisplay_changed),
            (source.layers.events.begin_batch, self._on_batch_started),
            (source.layers.events.end_batch, self._on_batch_ended),
        )
        for emitter, handler in self._layer_events:
            emitter.connect(handler)
        for layer in source.layers:
            self._add(layer)
        self._on_active_changed()
        self.update_visibility()

    def close(self) -> None:
        """Disconnect from the layers of the source and remove the copies."""
        self._uncopied = []
        self._add_timer.stop()
        self._change_timer.stop()
        self._edit_timer.stop()
        for emitter, handler in self._layer_events:
            emitter.disconnect(handler)
        with self._target.layers.batched_update():
            for layer in list(self._copies):
                self._remove(layer)

    def _make_timer(self, interval_ms: int, callback: Callable[[], None]) -> QTimer:
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.setInterval(interval_ms)
        timer.timeout.connect(callback)
        return timer

    # ---- The list of layers ------------------------------------------------------------------

    def _on_inserted(self, event: Any) -> None:
        # Adding a layer takes napari 0.1 s; the window must react between two of them.
        self._uncopied.append(event.value)
        self._add_timer.start()

    def _add_next(self) -> None:
        if self._uncopied:
            was_empty = not self._copies
            self._add(self._uncopied.pop(0))
            self._on_active_changed()
            if was_empty and self._copies:
                self.filled.emit()
            self.update_visibility()
        if self._uncopied:
            self._add_timer.start()

    def _on_removed(self, event: Any) -> None:
        self._remove(event.value)

    def _on_batch_started(self, _: Any) -> None:
        self._batch = "started"

    def _on_batch_ended(self, _: Any) -> None:
        if self._batch == "used":
            self._target.layers.events.end_batch()
        self._batch = "none"

    def _on_reordered(self, _: Any) -> None:
        for position, layer in enumerate(self._copied_layers()):
            index = self._target.layers.index(self._copies[layer])
            if index != position:
                self._target.layers.move(index, position)

    def _on_active_changed(self, _: Any = None) -> None:
        active = self._source.layers.selection.active
        self._target.layers.selection.active = self._copies.get(active) if active else None

    def _copied_layers(self) -> list[Layer]:
        return [layer for layer in self._source.layers if layer in self._copies]

    def _add(self, layer: Layer) -> None:
        if isinstance(layer, (RoiLayer, StructureSurface)) or layer.ndim != SPATIAL_DIMENSIONS:
            return  # of the main view: the region of interest in its slice, surfaces in 3D
        layer_copy = copy_layer(layer)
        self._copies[layer] = layer_copy
        self._target.layers.insert(self._copied_layers().index(layer), layer_copy)
        connections = self._list_connections(layer, layer_copy)
        for emitter, handler in connections:
            emitter.connect(handler)
        self._connections[layer] = connections

    def _list_connections(self, layer: Layer, layer_copy: Layer) -> list[Connection]:
        """List the events of a layer and its copy that are followed."""
        shares_tools = isinstance(layer, Labels)
        connections: list[Connection] = [
            (getattr(layer.events, name), partial(self._on_source_changed, layer, name))
            for name in (*COPIED_PROPERTIES, *(SHARED_PROPERTIES if shares_tools else ()))
            if hasattr(layer, name) and hasattr(layer.events, name)
        ]
        if shares_tools:
            connections += [
                (getattr(layer_copy.events, name), partial(self._on_copy_changed, layer, name))
                for name in SHARED_PROPERTIES
            ]
            connections += [
                (getattr(edited.events, name), partial(self._on_edited, other))
                for edited, other in ((layer, layer_copy), (layer_copy, layer))
                for name in EDIT_EVENTS
                if hasattr(edited.events, name)
            ]
        return connections

    def _remove(self, layer: Layer) -> None:
        if layer in self._uncopied:
            self._uncopied.remove(layer)
        for emitter, handler in self._connections.pop(layer, []):
            emitter.disconnect(handler)
        self._pending.pop(layer, None)
        layer_copy = self._copies.pop(layer, None)
        self._edited -= {layer, layer_copy}
        if layer_copy is not None and layer_copy in self._target.layers:
            if self._batch == "started":
                self._target.layers.events.begin_batch()
                self._batch = "used"
            self._target.layers.remove(layer_copy)

    # ---- Properties --------------------------------------------------------------------------

    def _on_source_changed(self, layer: Layer, name: str, _: Any = None) -> None:
        if not self._is_applying:
            self._pending.setdefault(layer, set()).add(name)
            self._change_timer.start()

    def _apply_changes(self) -> None:
        """Copy changed properties, as many layers as fit into a turn of the event loop."""
        end = time.monotonic() + MAX_TURN_S
        self._is_applying = True
        try:
            while self._pending and time.monotonic() < end:
                layer = next(iter(self._pending))
                names, layer_copy = self._pending.pop(layer), self._copies.get(layer)
                if layer_copy is None:
                    continue
                for name in (*COPIED_PROPERTIES, *SHARED_PROPERTIES):
                    if name in names and not self._is_kept(name):
                        copy_property(layer, layer_copy, name)
        finally:
            self._is_applying = False
        if self._pending:
            self._change_timer.start()

    def _is_kept(self, name: str) -> bool:
        """Whether a property is not copied: the 3D view hides scans that slices still show."""
        return name == "visible" and self._source.dims.ndisplay == SPATIAL_DIMENSIONS

    def update_visibility(self) -> None:
        """Beside the 3D view, show what slices are to show."""
        if self._source.dims.ndisplay != SPATIAL_DIMENSIONS:
            return  # events of the layers have told of it
        self._is_applying = True
        try:
            for layer, layer_copy in self._copies.items():
                is_shown = self._is_shown_in_slices(layer)
                if is_shown is not None and layer_copy.visible != is_shown:
                    layer_copy.visible = is_shown
        finally:
            self._is_applying = False

    def _on_ndisplay_changed(self, _: Any) -> None:
        """Take over what was shown or hidden while the main view was in 3D."""
        for layer in self._copies:
            self._on_source_changed(layer, "visible")

    def _on_copy_changed(self, layer: Layer, name: str, _: Any = None) -> None:
        """Take over a tool that was chosen in the other view."""
        if self._is_applying or layer not in self._copies:
            return
        layer_copy = self._copies[layer]
        if name == "mode" and not (layer.visible and layer_copy.visible):
            return  # napari leaves the painting modes of layers that are hidden
        self._is_applying = True
        try:
            copy_property(layer_copy, layer, name)
        finally:
            self._is_applying = False

    # ---- Edits -------------------------------------------------------------------------------

    def _on_edited(self, other: Layer, _: Any = None) -> None:
        if not self._is_applying:
            self._edited.add(other)
            if not self._edit_timer.isActive():
                self._edit_timer.start()

    def _redraw_edited(self) -> None:
        edited, self._edited = self._edited, set()
        self._is_applying = True
        try:
            for layer in edited:
                layer.refresh(extent=False)
                if layer in self._copies and isinstance(layer, ExtensibleLabels):
                    # Layers that are drawn from this one, and the copies in further views.
                    layer.events.edited()
        finally:
            self._is_applying = False


def copy_layer(layer: Layer) -> Layer:
    """Copy a layer for another view; both paint the same voxels under the same limits."""
    data, settings, layer_type = layer.as_layer_data_tuple()
    if isinstance(layer, CaseLabels):
        label_copy = CaseLabels(
            data, image=layer.limits.image, read_only=layer.is_read_only, **settings
        )
        share_history(layer, label_copy)
        label_copy.limits = layer.limits
        copy_property(layer, label_copy, "brush_size")
        for name in ("contour", "selected_label", "n_edit_dimensions", "mode"):
            copy_property(layer, label_copy, name)
        return label_copy
    if isinstance(layer, ExtensibleLabels):
        layer_copy: Layer = type(layer)(data, **settings)
    else:
        layer_copy = Layer.create(data, settings, layer_type)
    if isinstance(layer, Labels) and isinstance(layer_copy, Labels):
        share_history(layer, layer_copy)
        layer_copy.editable = layer.editable
        if not layer.editable:
            omit_drawing_visuals(layer_copy)
        copy_property(layer, layer_copy, "contour")  # missing in napari's tuple of a layer
    return layer_copy


def copy_property(source: Layer, target: Layer, name: str) -> None:
    """Copy one property if it differs; the brush keeps its diameter in millimeters."""
    if name == "brush_size" and isinstance(source, CaseLabels) and isinstance(target, CaseLabels):
        if target.brush_mm != source.brush_mm:
            target.brush_mm = source.brush_mm
        return
    value = getattr(source, name)
    if name == "data":
        if target.data is value:
            target.refresh(extent=False)
        else:
            target.data = value
    elif name == "colormap" or not is_equal(getattr(target, name), value):
        setattr(target, name, value)


def is_equal(a: Any, b: Any) -> bool:
    """Whether two values of a property are equal, also if they are arrays."""
    result = a == b
    return bool(result) if isinstance(result, bool) else bool(getattr(result, "all", bool)())
