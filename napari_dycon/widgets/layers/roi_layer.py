"""The region of interest that limits growing, drawn as a rectangle and shown in its slices.

The region is a three-dimensional box, but napari's rectangles are flat. The layer holds the
cross-section of the box in the current slice; edits of this rectangle change the box.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Shapes
from napari.layers.base import ActionType
from qtpy.QtCore import QObject, QTimer, Signal

from napari_dycon.annotation.regions import with_slice_extent
from napari_dycon.core.types import Box
from napari_dycon.errors import UserError
from napari_dycon.widgets.layers.layer_stack import LayerStack
from napari_dycon.widgets.layers.napari_layers import NapariTypeMixin
from napari_dycon.widgets.window.helpers import report_errors
from napari_dycon.widgets.window.preferences import get_preferences

ROI_COLOR = "#35d0ff"
LINE_WIDTH_PX = 2
FINISHED_ACTIONS = (ActionType.ADDED, ActionType.CHANGED, ActionType.REMOVED)
Corners = npt.NDArray[np.float64]


class RoiLayer(NapariTypeMixin, Shapes):
    """Rectangles of the region; a separate class, so that synchronized views can exclude it."""

    napari_type = "shapes"


class RoiController(QObject):
    """Draws, shows and reads the region of the active case."""

    editing_changed = Signal()
    layer_created = Signal(object)  # a new layer of the region

    def __init__(self, layers: LayerStack) -> None:
        super().__init__(layers)
        self._layers = layers
        self._session = layers.session
        self._viewer = layers.viewer
        self._shown_rectangles: list[Corners] = []  # rectangles that the program added to the layer
        self._layer: Shapes | None = None
        self._is_editing = False
        # napari emits the event while its tool still edits the rectangle, so it is read in the
        # next event-loop iteration.
        self._read_timer = QTimer(self)
        self._read_timer.setSingleShot(True)
        self._read_timer.timeout.connect(report_errors(self._session, self._read_roi))
        self._removal_timer = QTimer(self)  # removing a layer is slow in napari
        self._removal_timer.setSingleShot(True)
        self._removal_timer.timeout.connect(self._remove_unused_layer)
        self._session.annotation.roi_changed.connect(self._on_roi_changed)
        dims = self._viewer.dims.events
        for event in (dims.point, dims.order, dims.ndisplay):
            event.connect(self.refresh)
        self._viewer.layers.selection.events.active.connect(self._on_active_layer_changed)
        self._viewer.layers.events.removed.connect(self._on_layer_removed)

    def close(self) -> None:
        """Release the viewer and the session."""
        self._read_timer.stop()
        self._removal_timer.stop()
        self._session.annotation.roi_changed.disconnect(self._on_roi_changed)
        dims = self._viewer.dims.events
        for event in (dims.point, dims.order, dims.ndisplay):
            event.disconnect(self.refresh)
        self._viewer.layers.selection.events.active.disconnect(self._on_active_layer_changed)
        self._viewer.layers.events.removed.disconnect(self._on_layer_removed)

    @property
    def layer(self) -> Shapes | None:
        """Layer of the region, or ``None``."""
        return (
            self._layer if self._layer is not None and self._layer in self._viewer.layers else None
        )

    @property
    def is_editing(self) -> bool:
        """Whether the mouse draws or moves the region."""
        return self._is_editing

    def start_editing(self) -> None:
        """Activate the rectangle tool, or select the region if the current slice shows it."""
        self._session.require_case()
        if self._viewer.dims.ndisplay != 2:
            raise UserError("Switch to the 2D view to draw a region.")
        layer = self._ensure_layer()
        self._layers.set_visible("roi", True)
        self._viewer.layers.selection.active = layer
        self._removal_timer.stop()
        self._session.message.emit(
            "info",
            "Drag a rectangle around the region to grow in."
            if self._session.annotation.roi is None
            else "Drag the region or its corners, or draw it in a slice that does not show it.",
        )

    def finish_editing(self) -> None:
        """Apply the last rectangle and return to the brush."""
        if self._read_timer.isActive():
            self._read_timer.stop()
            self._read_roi()
        self._deactivate()

    def toggle_editing(self) -> None:
        """Start or finish editing the region."""
        if self._is_editing:
            self.finish_editing()
        else:
            self.start_editing()

    def set_slices(self, start: int, stop: int) -> None:
        """Set the slices of the region along the current axis; ``stop`` is exclusive."""
        annotation = self._session.annotation
        if annotation.roi is not None:
            annotation.set_roi(
                with_slice_extent(annotation.roi, self._layers.main_axis, start, stop)
            )
            self._notify(annotation.roi)

    def restore(self) -> None:
        """Show the region of the active case; its layer may have been removed with others."""
        if self._session.annotation.roi is not None:
            self._ensure_layer()
        self.refresh()

    def refresh(self, *_: object) -> None:
        """Show the cross-section of the region in the current slice, or its two ends in 3D."""
        layer = self.layer
        if layer is None or layer._is_creating or layer._is_moving or self._read_timer.isActive():
            return  # being edited by the user
        rectangles = self._compute_rectangles()
        if not are_same_rectangles(layer.data, rectangles):
            with self._layers.suppress_events():
                layer.bounding_box.visible = bool(rectangles)
                layer.data = rectangles
                layer.edge_width = 0  # napari makes it 1 where there was no rectangle
        self._shown_rectangles = rectangles
        if self._is_editing:
            layer.mode = "select" if rectangles else "add_rectangle"
            layer.selected_data = set(range(len(rectangles)))

    # ---- From the session to the layer -------------------------------------------------------

    def _ensure_layer(self) -> Shapes:
        """Return the layer for the active case, creating it if necessary."""
        case, layer = self._session.require_case(), self.layer
        with self._layers.suppress_events():
            if layer is not None:
                self._layers.assign_to_case(layer, case, "roi")
                return layer
            layer = RoiLayer(
                ndim=3,
                name="region",
                edge_color=ROI_COLOR,
                face_color="transparent",
                edge_width=0,  # edges scale with anisotropic voxels; the outline does not
                **self._layers.build_settings(case, "roi"),
            )
            self._layer = layer
            outline = layer.bounding_box
            outline.points = False
            outline.line_color, outline.line_thickness = ROI_COLOR, LINE_WIDTH_PX
            layer.events.data.connect(self._on_data_changed)
            self._layers.insert(layer)
            self._layers.track_visibility(layer)
        self.layer_created.emit(layer)
        return layer

    def _compute_rectangles(self) -> list[Corners]:
        """Cross-section of the region in the current slice; its two ends in 3D."""
        roi, case = self._session.annotation.roi, self._session.case
        if roi is None or case is None:
            return []
        axis = self._layers.main_axis
        index = self._layers.get_slice_index(axis)
        if self._viewer.dims.ndisplay != 2:
            return [compute_corners(roi, axis, end, case.label.shape) for end in (0, 1)]
        if not roi[axis].start <= index < roi[axis].stop:
            return []
        return [
            compute_corners(
                with_slice_extent(roi, axis, index, index + 1), axis, 0, case.label.shape
            )
        ]

    def _on_roi_changed(self, roi: Box | None) -> None:
        if roi is None:
            self._read_timer.stop()
            self._deactivate()
        self.restore()

    def _deactivate(self) -> None:
        """Return to the brush and remove a layer without a region."""
        label = self._layers.find_layer("label")
        if self._is_editing and label is not None:
            self._viewer.layers.selection.active = label
        if self._session.annotation.roi is None and self.layer is not None:
            self._removal_timer.start()

    def _remove_unused_layer(self) -> None:
        if self._session.annotation.roi is None and (layer := self.layer) is not None:
            with self._layers.suppress_events():
                self._viewer.layers.remove(layer)

    # ---- From the layer to the session -------------------------------------------------------

    def _on_data_changed(self, event: Any) -> None:
        if not self._layers.is_suppressed and event.action in FINISHED_ACTIONS:
            self._read_timer.start()

    def _read_roi(self) -> None:
        """Update the region from the rectangle that the user edited."""
        layer, annotation = self.layer, self._session.annotation
        if layer is None or are_same_rectangles(layer.data, self._shown_rectangles):
            return
        if not layer.data:
            annotation.set_roi(None)
            return
        margin_mm = float(get_preferences().annotate.grow_margin_mm)
        axis, is_new_rectangle = (
            self._layers.main_axis,
            len(layer.data) > len(self._shown_rectangles),
        )
        try:
            roi = annotation.draw_roi(layer.data[-1], axis, margin_mm)
        finally:
            self.refresh()  # snap to voxels, or remove an invalid rectangle
        if is_new_rectangle:
            self._deactivate()
        self._notify(roi)

    def _notify(self, roi: Box) -> None:
        slices = roi[self._layers.main_axis]
        self._session.message.emit(
            "info", f"Growing is limited to the region, slices {slices.start + 1} to {slices.stop}."
        )

    def _on_active_layer_changed(self, *_: object) -> None:
        """Follow the selected layer, whether selected by the button or in napari's list."""
        layer = self.layer
        is_editing = layer is not None and self._viewer.layers.selection.active == layer
        if self._layers.is_suppressed or is_editing == self._is_editing:
            return
        self._is_editing = is_editing
        if is_editing:
            self.refresh()
        elif layer is not None:
            layer.mode = "pan_zoom"
            layer.selected_data = set()
            self._deactivate()
        self.editing_changed.emit()

    def _on_layer_removed(self, event: Any) -> None:
        """Clear the region when the user removes its layer."""
        metadata = event.value.metadata.get("napari_dycon", {})
        if not self._layers.is_suppressed and metadata.get("role") == "roi":
            self._session.annotation.set_roi(None)


def compute_corners(box: Box, axis: int, end: int, shape: Sequence[int]) -> Corners:
    """Corners ``(4, 3)`` of the rectangle at the first (0) or last (1) slice of a box, in voxels.

    It follows voxel borders but stays within the centers of the outermost voxels; otherwise
    napari's sliders would extend beyond the scan.
    """
    low = [max(span.start - 0.5, 0.0) for span in box]
    high = [min(span.stop - 0.5, n - 1.0) for span, n in zip(box, shape, strict=True)]
    low[axis] = high[axis] = float((box[axis].start, box[axis].stop - 1)[end])
    first_axis, second_axis = (a for a in range(3) if a != axis)
    points = np.array([low] * 4, dtype=np.float64)
    points[1:3, first_axis] = high[first_axis]
    points[2:, second_axis] = high[second_axis]
    return points


def are_same_rectangles(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Whether two lists of rectangles are the same."""
    return len(a) == len(b) and all(
        np.shape(x) == np.shape(y) and np.allclose(x, y) for x, y in zip(a, b, strict=True)
    )
