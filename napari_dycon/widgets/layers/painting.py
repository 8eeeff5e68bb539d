"""The brush on the label layer: what it paints, how wide, and clicks that are no strokes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.components import ViewerModel
from napari.viewer import Viewer
from qtpy.QtCore import QObject, Signal

from napari_dycon.project.models import UNANNOTATED
from napari_dycon.session import Session
from napari_dycon.widgets.layers.label_layer import CaseLabels
from napari_dycon.widgets.layers.layer_stack import LayerStack
from napari_dycon.widgets.window.preferences import preferences


class PaintedLayers(LayerStack):
    """Layers of a case whose label is painted on; the brush stays the same from case to case."""

    brush_changed = Signal(int)  # value of the structure to paint, chosen in napari's controls
    size_changed = Signal()  # of the brush, in napari's controls

    def __init__(
        self,
        session: Session,
        viewer: ViewerModel,
        parent: QObject,
        window_shown: Callable[[], bool],
    ) -> None:
        super().__init__(session, viewer, parent)
        self._window_shown = window_shown
        self.brush = 1  # value of the structure to paint
        self.brush_mm = float(preferences().annotate.brush_mm)
        self.brush_3d = False
        self._awaited: Callable[[], None] | None = None  # ends the wait for a click
        session.annotation.paint_range_changed.connect(self._limit)

    def set_brush_mm(self, diameter: float) -> None:
        """Set the brush's diameter, now and for the cases to come."""
        self.brush_mm = diameter
        if (layer := self.layer("label")) is not None:
            with self.own_work():
                layer.brush_mm = diameter

    def set_brush_3d(self, on: bool) -> None:
        """Paint balls instead of discs, now and for the cases to come."""
        self.brush_3d = on
        if (layer := self.layer("label")) is not None:
            with self.own_work():
                layer.n_edit_dimensions = 3 if on else 2
                layer.brush_mm = self.brush_mm

    def on_next_click(self, work: Callable[[tuple[int, int, int]], None]) -> None:
        """Call ``work`` with the voxel that is clicked next; the click does not paint."""
        layer = self.layer("label")
        if layer is None:
            return
        if self._awaited is not None:  # asked for another click before this one came
            self._awaited()
        before = str(layer.mode)
        layer.mode = "pan_zoom"

        def stop() -> None:
            self._awaited = None
            self.viewer.mouse_drag_callbacks.remove(clicked)
            if layer in self.viewer.layers:
                layer.mode = before

        def clicked(_: object, event: Any) -> None:
            stop()
            if layer in self.viewer.layers:
                z, y, x = (round(float(c)) for c in layer.world_to_data(event.position))
                work((z, y, x))

        self._awaited = stop
        self.viewer.mouse_drag_callbacks.append(clicked)

    def accept_with_brush(self) -> None:
        """Take the brush to copy the prediction into the label."""
        layer, view = self.layer("label"), self.session.case
        if layer is not None and view is not None:
            self.viewer.layers.selection.active = layer
            layer.visible = True
            layer.limits.template = view.prediction
            layer.mode = "paint"

    # ---- For those who show a case ----------------------------------------------------------

    def _hand_brush_to(self, label: CaseLabels) -> None:
        """Let a new label layer be painted as the one before."""
        label.selected_label = self.brush
        label.n_edit_dimensions = 3 if self.brush_3d else 2
        label.brush_mm = self.brush_mm
        label.limits.gray_range = self.session.annotation.paint_range
        label.events.selected_label.connect(self._brush_changed)
        label.events.brush_size.connect(self._size_changed)
        label.events.n_edit_dimensions.connect(self._size_changed)

    def _put_brush_down(self) -> None:
        """Before all layers go.

        Without any, OpenGL may draw from what was just freed for the brush, and the program
        crashes; so the brush is put down and drawn away first.
        """
        if (label := self.layer("label")) is not None:
            label.mode = "pan_zoom"
            if isinstance(self.viewer, Viewer) and self._window_shown():
                self.viewer.screenshot(canvas_only=True, flash=False)

    def _release_brush(self) -> None:
        """Wait for no click, and put the brush down."""
        if self._awaited is not None:
            self._awaited()
        self._put_brush_down()
        self.session.annotation.paint_range_changed.disconnect(self._limit)

    # ---- From napari's own controls ----------------------------------------------------------

    def _brush_changed(self, event: Any) -> None:
        """Follow napari's own controls, but never to a value that no structure has."""
        value = int(event.source.selected_label)
        known = {c.value for c in self.classes()}
        if value in known:
            self.brush = value
            self.brush_changed.emit(value)
        elif value not in (0, UNANNOTATED) and known:
            self.session.message.emit(
                "info", f"No structure has the value {value}. Add one with Add structure… first."
            )
            event.source.selected_label = self.brush

    def _size_changed(self, event: Any) -> None:
        """Follow the brush of napari's own controls and keys."""
        if not self._working:
            self.brush_mm = event.source.brush_mm
            self.brush_3d = event.source.n_edit_dimensions == 3
            self.size_changed.emit()

    def _limit(self, gray: tuple[float, float] | None) -> None:
        if (layer := self.layer("label")) is not None:
            layer.limits.gray_range = gray
