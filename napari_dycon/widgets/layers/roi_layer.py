"""The box that growing stays in: a rectangle that people draw, seen in every slice it reaches.

The box is three-dimensional, and napari's rectangles are flat: the layer holds the one where the
box is cut by the slice in view. What a person makes of that rectangle becomes the box.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from napari.layers import Shapes
from napari.layers.base import ActionType
from qtpy.QtCore import QObject, QTimer, Signal

from napari_dycon.annotation.regions import Box, with_slice_extent
from napari_dycon.errors import UserError
from napari_dycon.widgets.window.helpers import guarded
from napari_dycon.widgets.window.preferences import preferences

if TYPE_CHECKING:
    from napari_dycon.widgets.layers.case_layers import CaseLayers

COLOR = "#35d0ff"
LINE_PX = 2
DONE = (ActionType.ADDED, ActionType.CHANGED, ActionType.REMOVED)
Corners = npt.NDArray[np.float64]


class BoxLayer(Shapes):
    """Rectangles of the box; a class of its own for those who treat it apart."""

    @property
    def _type_string(self) -> str:
        return "shapes"  # napari chooses writers and icons by it, not by class


class GrowBox(QObject):
    """Draws, shows and reads the box of the case in view."""

    editing_changed = Signal()
    layer_made = Signal(object)  # a new layer of the box

    def __init__(self, layers: CaseLayers) -> None:
        super().__init__(layers)
        self._layers = layers
        self._session = layers.session
        self._viewer = layers.viewer
        self._put: list[Corners] = []  # rectangles that the program put into the layer
        self._made: Shapes | None = None
        self._editing = False
        # napari tells of a rectangle while its own tool still works on it: it is read a turn later.
        self._drawn = QTimer(self)
        self._drawn.setSingleShot(True)
        self._drawn.timeout.connect(guarded(self._session, self._read))
        self._gone = QTimer(self)  # napari takes long to remove a layer: in a turn of its own
        self._gone.setSingleShot(True)
        self._gone.timeout.connect(self._remove_unused)
        self._session.annotation.roi_changed.connect(self._box_changed)
        dims = self._viewer.dims.events
        for event in (dims.point, dims.order, dims.ndisplay):
            event.connect(self.refresh)
        self._viewer.layers.selection.events.active.connect(self._active_changed)
        self._viewer.layers.events.removed.connect(self._on_removed)

    def close(self) -> None:
        """Release the viewer and the session."""
        self._drawn.stop()
        self._gone.stop()
        self._session.annotation.roi_changed.disconnect(self._box_changed)
        dims = self._viewer.dims.events
        for event in (dims.point, dims.order, dims.ndisplay):
            event.disconnect(self.refresh)
        self._viewer.layers.selection.events.active.disconnect(self._active_changed)
        self._viewer.layers.events.removed.disconnect(self._on_removed)

    @property
    def layer(self) -> Shapes | None:
        """The layer of the box, or ``None``."""
        return self._made if self._made is not None and self._made in self._viewer.layers else None

    @property
    def editing(self) -> bool:
        """Whether the mouse draws or moves the box."""
        return self._editing

    def edit(self) -> None:
        """Take the rectangle tool; where the box is in view, take hold of it."""
        self._session.require_case()
        if self._viewer.dims.ndisplay != 2:
            raise UserError("Switch to the 2D view to draw a box.")
        layer = self._put_layer()
        self._layers.set_visible("box", True)
        self._viewer.layers.selection.active = layer
        self._gone.stop()
        self._session.message.emit(
            "info",
            "Drag a rectangle around what shall grow."
            if self._session.annotation.roi is None
            else "Drag the box or its corners. Where a slice does not show it, draw it there.",
        )

    def finish(self) -> None:
        """Back to the brush; what was drawn last counts."""
        if self._drawn.isActive():
            self._drawn.stop()
            self._read()
        self._let_go()

    def toggle(self) -> None:
        """Draw or change the box; or go back to the brush."""
        if self._editing:
            self.finish()
        else:
            self.edit()

    def set_slices(self, start: int, stop: int) -> None:
        """Let the box reach from ``start`` to before ``stop`` across the axis in view."""
        drawing = self._session.annotation
        if drawing.roi is not None:
            drawing.set_roi(with_slice_extent(drawing.roi, self._layers.axis, start, stop))
            self._tell(drawing.roi)

    def restore(self) -> None:
        """Show the box of the case in view; its layer may have gone with others."""
        if self._session.annotation.roi is not None:
            self._put_layer()
        self.refresh()

    def refresh(self, *_: object) -> None:
        """Show the box where the slice in view cuts it, or the whole of it in 3D."""
        layer = self.layer
        if layer is None or layer._is_creating or layer._is_moving or self._drawn.isActive():
            return  # in a person's hand
        wanted = self._rectangles()
        if not alike(layer.data, wanted):
            with self._layers.own_work():
                layer.bounding_box.visible = bool(wanted)
                layer.data = wanted
                layer.edge_width = 0  # napari makes it 1 where there was no rectangle
        self._put = wanted
        if self._editing:
            layer.mode = "select" if wanted else "add_rectangle"
            layer.selected_data = set(range(len(wanted)))

    # ---- From the session to the layer -------------------------------------------------------

    def _put_layer(self) -> Shapes:
        """The layer, for the case in view; it is made where there is none."""
        view, layer = self._session.require_case(), self.layer
        with self._layers.own_work():
            if layer is not None:
                self._layers.place(layer, view, "box")
                return layer
            layer = BoxLayer(
                ndim=3,
                name="Box",
                edge_color=COLOR,
                face_color="transparent",
                edge_width=0,  # lines of shapes are as uneven as voxels; the outline's are even
                **self._layers.settings(view, "box"),
            )
            self._made = layer
            outline = layer.bounding_box
            outline.points = False
            outline.line_color, outline.line_thickness = COLOR, LINE_PX
            layer.events.data.connect(self._data_changed)
            self._layers.insert(layer, on_top=True)
            self._layers.follow_eye(layer)
        self.layer_made.emit(layer)
        return layer

    def _rectangles(self) -> list[Corners]:
        """Where the slice in view cuts the box; its two ends in 3D."""
        box, view = self._session.annotation.roi, self._session.case
        if box is None or view is None:
            return []
        axis, index = self._layers.axis, self._layers.slice_index
        if self._viewer.dims.ndisplay != 2:
            return [corners(box, axis, end, view.label.shape) for end in (0, 1)]
        if not box[axis].start <= index < box[axis].stop:
            return []
        return [corners(with_slice_extent(box, axis, index, index + 1), axis, 0, view.label.shape)]

    def _box_changed(self, box: Box | None) -> None:
        if box is None:
            self._drawn.stop()
            self._let_go()
        self.restore()

    def _let_go(self) -> None:
        """Give the mouse back to the brush; a layer without a box goes."""
        label = self._layers.layer("label")
        if self._editing and label is not None:
            self._viewer.layers.selection.active = label
        if self._session.annotation.roi is None and self.layer is not None:
            self._gone.start()

    def _remove_unused(self) -> None:
        if self._session.annotation.roi is None and (layer := self.layer) is not None:
            with self._layers.own_work():
                self._viewer.layers.remove(layer)

    # ---- From the layer to the session -------------------------------------------------------

    def _data_changed(self, event: Any) -> None:
        if not self._layers.working and event.action in DONE:
            self._drawn.start()

    def _read(self) -> None:
        """Make what a person did to the rectangle the box."""
        layer, drawing = self.layer, self._session.annotation
        if layer is None or alike(layer.data, self._put):
            return
        if not layer.data:
            drawing.set_roi(None)
            return
        margin = float(preferences().annotate.grow_margin_mm)
        axis, drawn = self._layers.axis, len(layer.data) > len(self._put)
        try:
            box = drawing.draw_roi(layer.data[-1], axis, margin)
        finally:
            self.refresh()  # exactly on voxels, or without what is no box
        if drawn:
            self._let_go()
        self._tell(box)

    def _tell(self, box: Box) -> None:
        reach = box[self._layers.axis]
        self._session.message.emit(
            "info", f"Growing stays inside the box, in slices {reach.start} to {reach.stop - 1}."
        )

    def _active_changed(self, *_: object) -> None:
        """Follow the choice of a layer, be it by the button or in napari's list."""
        layer = self.layer
        editing = layer is not None and self._viewer.layers.selection.active == layer
        if self._layers.working or editing == self._editing:
            return
        self._editing = editing
        if editing:
            self.refresh()
        elif layer is not None:
            layer.mode = "pan_zoom"
            layer.selected_data = set()
            self._let_go()
        self.editing_changed.emit()

    def _on_removed(self, event: Any) -> None:
        """The box goes with its layer when somebody removes that by hand."""
        mark = event.value.metadata.get("napari_dycon", {})
        if not self._layers.working and mark.get("role") == "box":
            self._session.annotation.set_roi(None)


def corners(box: Box, axis: int, end: int, shape: Sequence[int]) -> Corners:
    """``(4, 3)``, rectangle around the first (0) or last (1) slice of a box, in voxels.

    It runs along the borders of voxels, but never beyond the centers of the scan's outermost ones:
    napari's sliders would reach further than the scan.
    """
    low = [max(span.start - 0.5, 0.0) for span in box]
    high = [min(span.stop - 0.5, n - 1.0) for span, n in zip(box, shape, strict=True)]
    low[axis] = high[axis] = float((box[axis].start, box[axis].stop - 1)[end])
    one, two = (a for a in range(3) if a != axis)
    points = np.array([low] * 4, dtype=np.float64)
    points[1:3, one] = high[one]
    points[2:, two] = high[two]
    return points


def alike(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Whether two lists of rectangles are the same."""
    return len(a) == len(b) and all(
        np.shape(x) == np.shape(y) and np.allclose(x, y) for x, y in zip(a, b, strict=True)
    )
