"""The brush on the label layer: value, width, and clicks that do not paint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.components import ViewerModel
from napari.viewer import Viewer
from qtpy.QtCore import QObject, QTimer, Signal

from napari_dycon.core.types import UNANNOTATED
from napari_dycon.session import Session
from napari_dycon.widgets.layers.label_layer import CaseLabels
from napari_dycon.widgets.layers.layer_guard import LayerGuard
from napari_dycon.widgets.layers.layer_stack import METADATA_KEY, LayerStack
from napari_dycon.widgets.layers.region_marker import RegionMarker
from napari_dycon.widgets.layers.surfaces import Surfaces
from napari_dycon.widgets.window.preferences import get_preferences

MAX_BRUSH_MM = 200.0
BRUSH_GROWTH = 1.25  # from one width to the next
PAINTING_MODES = ("paint", "polygon", "fill")  # write the selected value
STROKE_PAUSE_MS = 400  # without painting, after which a stroke counts as ended


class PaintedLayers(LayerStack):
    """Layers of a case with a paintable label; brush settings persist between cases."""

    brush_value_changed = Signal(int)  # value of the structure to paint, set in napari's controls
    brush_size_changed = Signal()  # of the brush, in napari's controls
    tool_changed = Signal()  # tool of the label, value that it writes, or what the brush copies
    history_changed = Signal()  # another step of the label can be undone or redone
    stroke_blocked = Signal()  # a stroke painted nothing because of the limits to intensities

    def __init__(
        self,
        session: Session,
        viewer: ViewerModel,
        parent: QObject,
        is_window_visible: Callable[[], bool],
    ) -> None:
        super().__init__(session, viewer, parent)
        self._is_window_visible = is_window_visible
        self.guard = LayerGuard(self)
        self.marker = RegionMarker(self)
        self.surfaces = Surfaces(self)
        self.brush_value = 1  # value of the structure to paint
        self.brush_mm = float(get_preferences().annotate.brush_mm)
        self.brush_3d = False
        self._has_painted = False  # since the stroke began
        self._stroke_timer = QTimer(self)
        self._stroke_timer.setSingleShot(True)
        self._stroke_timer.setInterval(STROKE_PAUSE_MS)
        self._stroke_timer.timeout.connect(self._end_stroke)
        self._cancel_click: Callable[[], None] | None = None  # cancels waiting for a click
        self._restore_mode: Callable[[], None] | None = None  # after the click, once it is handled
        self._mode_timer = QTimer(self)
        self._mode_timer.setSingleShot(True)
        self._mode_timer.setInterval(0)
        self._mode_timer.timeout.connect(self._finish_click)
        session.annotation.paint_range_changed.connect(self._apply_paint_range)
        viewer.layers.selection.events.active.connect(self._on_tool_changed)

    @property
    def is_own_layer_active(self) -> bool:
        """Whether no layer of other origin is selected, and the region is not edited."""
        active = self.viewer.layers.selection.active
        if active is None:
            return self.find_layer("label") is not None
        return active.metadata.get(METADATA_KEY, {}).get("role") not in (None, "roi")

    @property
    def painted_value(self) -> int | None:
        """Value that the active tool writes; ``None`` if it writes none or copies a prediction."""
        layer = self.find_layer("label")
        if (
            layer is None
            or layer.limits.reference_label is not None
            or self.viewer.layers.selection.active != layer
        ):
            return None
        if str(layer.mode) == "erase":
            return 0
        return int(layer.selected_label) if str(layer.mode) in PAINTING_MODES else None

    def set_brush_mm(self, diameter: float) -> None:
        """Set the diameter of the brush for this and later cases."""
        self.brush_mm = diameter
        if (layer := self.find_layer("label")) is not None:
            with self.suppress_events():
                layer.brush_mm = diameter

    def step_brush(self, step: int) -> None:
        """Take the next larger (1) or smaller (-1) brush."""
        if (layer := self.find_layer("label")) is None:
            return
        voxel_mm = layer.finest_painted_spacing
        width = choose_brush_width(round(layer.brush_mm / voxel_mm), step, MAX_BRUSH_MM / voxel_mm)
        self.set_brush_mm(width * voxel_mm)
        self.brush_size_changed.emit()

    def set_brush_3d(self, enabled: bool) -> None:
        """Use a spherical brush, for this and later cases."""
        self.brush_3d = enabled
        if (layer := self.find_layer("label")) is not None:
            with self.suppress_events():
                layer.n_edit_dimensions = 3 if enabled else 2
                layer.brush_mm = self.brush_mm

    def call_on_next_click(self, callback: Callable[[tuple[int, int, int]], None]) -> None:
        """Call ``callback`` with the voxel that is clicked next; the click does not paint."""
        layer = self.find_layer("label")
        if layer is None:
            return
        self.cancel_click()  # another one may have been requested before
        self._finish_click()
        previous_mode = str(layer.mode)
        layer.mode = "pan_zoom"

        def restore_mode() -> None:
            if layer in self.viewer.layers:
                layer.mode = previous_mode

        def stop_waiting() -> None:
            self._cancel_click = None
            layer.events.mode.disconnect(on_other_tool)
            self.viewer.mouse_drag_callbacks.remove(on_click)

        def on_other_tool(_: object) -> None:
            stop_waiting()  # the click is meant for that tool
            self.session.message.emit("info", "")

        def cancel() -> None:
            stop_waiting()
            restore_mode()

        def on_click(_: object, event: Any) -> None:
            stop_waiting()
            # The tool of the layer sees this press, too, and would paint if it was active again.
            self._restore_mode = restore_mode
            self._mode_timer.start()
            if layer in self.viewer.layers:
                z, y, x = (round(float(c)) for c in layer.world_to_data(event.position))
                callback((z, y, x))

        self._cancel_click = cancel
        layer.events.mode.connect(on_other_tool)
        self.viewer.mouse_drag_callbacks.append(on_click)

    def cancel_click(self) -> bool:
        """Stop waiting for a click; returns whether one was waited for."""
        if self._cancel_click is None:
            return False
        self._cancel_click()
        return True

    @property
    def is_waiting_for_click(self) -> bool:
        """Whether the next click is one that ``call_on_next_click`` waits for."""
        return self._cancel_click is not None

    def _finish_click(self) -> None:
        """Select the tool again that was active before a click."""
        restore, self._restore_mode = self._restore_mode, None
        if restore is not None:
            restore()

    def accept_with_brush(self) -> None:
        """Activate the brush that copies the prediction to the label."""
        layer, case = self.find_layer("label"), self.session.case
        if layer is not None and case is not None:
            self.viewer.layers.selection.active = layer
            layer.visible = True
            layer.limits.reference_label = case.prediction
            self.session.review.acceptance.begin_brush()
            layer.mode = "paint"
            self.tool_changed.emit()

    # ---- For subclasses ----------------------------------------------------------

    def _restore_brush(self, label: CaseLabels) -> None:
        """Apply the brush settings to a new label layer."""
        label.selected_label = self.brush_value
        label.n_edit_dimensions = 3 if self.brush_3d else 2
        label.brush_mm = self.brush_mm
        label.limits.on_limited = self._on_limited_painting
        label.limits.on_copied = self.session.review.acceptance.note_copied
        label.limits.history_changed.connect(self.history_changed.emit)
        label.limits.intensity_range = self.session.annotation.paint_range
        label.events.selected_label.connect(self._on_selected_label_changed)
        label.events.selected_label.connect(self._on_tool_changed)
        label.events.mode.connect(self._on_tool_changed)
        label.events.brush_size.connect(self._on_brush_size_changed)
        label.events.n_edit_dimensions.connect(self._on_brush_size_changed)

    def _deactivate_brush(self) -> None:
        """Deactivate the brush before all layers are removed.

        Otherwise OpenGL may draw the cursor of the brush from freed memory, which crashes the
        program.
        """
        if (label := self.find_layer("label")) is not None:
            label.mode = "pan_zoom"
            if isinstance(self.viewer, Viewer) and self._is_window_visible():
                self.viewer.screenshot(canvas_only=True, flash=False)

    def _disconnect_brush(self) -> None:
        """Cancel waiting for a click and deactivate the brush."""
        self.cancel_click()
        self._mode_timer.stop()
        self._stroke_timer.stop()
        self._deactivate_brush()
        self.guard.close()
        self.marker.close()
        self.surfaces.close()
        self.session.annotation.paint_range_changed.disconnect(self._apply_paint_range)
        self.viewer.layers.selection.events.active.disconnect(self._on_tool_changed)

    def _on_limited_painting(self, *, has_painted: bool) -> None:
        """Note whether the limits let a part of the stroke be painted."""
        self._has_painted |= has_painted
        self._stroke_timer.start()

    def _end_stroke(self) -> None:
        if not self._has_painted:
            self.stroke_blocked.emit()
        self._has_painted = False

    # ---- From napari's own controls ----------------------------------------------------------

    def _on_tool_changed(self, _: Any) -> None:
        self.tool_changed.emit()

    def _on_selected_label_changed(self, event: Any) -> None:
        """Follow napari's own controls, except for values without a structure."""
        value = int(event.source.selected_label)
        class_values = {c.value for c in self.classes()}
        if value in class_values:
            self.brush_value = value
            self.brush_value_changed.emit(value)
        elif value not in (0, UNANNOTATED) and class_values:
            self._report_unknown_value(value)
            event.source.selected_label = self.brush_value

    def _report_unknown_value(self, value: int) -> None:
        """Say how structures are added; napari's *new* asks for the next unused value."""
        text = f"No structure has the value {value}. " if value < UNANNOTATED else ""
        self.session.message.emit(
            "info", f"{text}To label another structure, press Add structure… under Annotate."
        )

    def _on_brush_size_changed(self, event: Any) -> None:
        """Follow the brush size of napari's own controls and keys."""
        if not self._is_suppressed:
            self.brush_mm = event.source.brush_mm
            self.brush_3d = event.source.n_edit_dimensions == 3
            self.brush_size_changed.emit()

    def _apply_paint_range(self, intensity_range: tuple[float, float] | None) -> None:
        if (layer := self.find_layer("label")) is not None:
            layer.limits.intensity_range = intensity_range


def choose_brush_width(width: int, step: int, largest: float) -> int:
    """Choose the next width of the brush in voxels: 1, 3, 5, 7, 9, 11, 13, 17, 21, 27, 33 ….

    Small ones differ by two voxels, since a brush has a center, and larger ones by a quarter.

    Parameters
    ----------
    step : 1 for the next larger, -1 for the next smaller one
    """
    widths = [1]
    while widths[-1] < largest:
        widths.append(max(widths[-1] + 2, 2 * round((BRUSH_GROWTH * widths[-1] - 1) / 2) + 1))
    if step > 0:
        return next((w for w in widths if w > width), width)
    return next((w for w in reversed(widths) if w < width), width)
