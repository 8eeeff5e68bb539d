"""The session's case as napari layers, and what is drawn on them back to the session.

Every layer of a case carries scale in millimetres, units and axis labels, so that all lie over each
other. Painting changes the session's own array in place; a timer notices any change, be it by
brush, fill or undo, and has it saved.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel
from napari.layers import Image, Layer
from napari.utils.colormaps import DirectLabelColormap
from napari.viewer import Viewer
from qtpy.QtCore import QObject, QTimer, Signal

from napari_dycon.case_view import CaseView
from napari_dycon.project.schema import UNANNOTATED, ClassInfo
from napari_dycon.session import Session
from napari_dycon.widgets.colours import label_colormap, same_colors
from napari_dycon.widgets.grow_box import GrowBox
from napari_dycon.widgets.label_layer import CaseLabels
from napari_dycon.widgets.overlays import Overlays
from napari_dycon.widgets.preferences import preferences
from napari_dycon.widgets.turns import Turns

AXIS_LABELS = ("superior", "posterior", "left")
KEY = "napari_dycon"
AUTOSAVE_MS = 1000
ROLES = (
    "image",
    "uncertainty",
    "disagreement",
    "prediction",
    "difference",
    "proposal",
    "label",
    "box",
)
HIDDEN = ("disagreement", "difference")  # until somebody asks for them


class CaseLayers(QObject):
    """Keeps the layers of the case in view; other layers of the viewer are left alone."""

    brush_changed = Signal(int)  # value of the structure to paint, chosen in napari's controls
    size_changed = Signal()  # of the brush, in napari's controls
    eye_clicked = Signal(str, bool)  # role shown or hidden in napari's list of layers

    def __init__(
        self,
        session: Session,
        viewer: ViewerModel,
        parent: QObject,
        window_shown: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(parent)
        self._window_shown = window_shown
        self.session = session
        self.viewer = viewer
        self.visible = {role: role not in HIDDEN for role in ROLES}
        self.opacity = dict.fromkeys(ROLES, 0.6) | {
            "image": 1.0,
            "prediction": 0.4,
            "proposal": 0.9,
            "box": 1.0,
        }
        self.overlays = Overlays(self)
        self.show_unannotated = False
        self.brush = 1  # value of the structure to paint
        self.brush_mm = float(preferences().annotate.brush_mm)
        self.brush_3d = False
        self.grey_window: tuple[float, float] | None = None  # that CT is looked at in
        self._working = False
        self.box = GrowBox(self)
        self._awaited: Callable[[], None] | None = None  # ends the wait for a click
        self._connections = (
            (session.case_shown, self._show),
            (session.prediction_changed, self.overlays.refresh),
            (session.label_edited, self._label_edited),
            (session.label_saved, self.overlays.compare),
            (session.project_changed, self._project_changed),
            (session.cases_changed, self._recolor),
            (session.drawing.proposal_changed, self.overlays.propose),
            (session.drawing.range_changed, self._limit),
        )
        for signal, slot in self._connections:
            signal.connect(slot)
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.dims.events.order.connect(self._upright)
        self._turns = Turns(self)
        self._timer = QTimer(self)
        self._timer.timeout.connect(session.save_label)
        self._timer.start(AUTOSAVE_MS)

    def close(self) -> None:
        """Release the viewer and the session; the layers of the case go, nobody would save them."""
        self._timer.stop()
        self._turns.stop()
        if self._awaited is not None:
            self._awaited()
        self._put_brush_down()
        with self.own_work():
            self._remove_all()
        self.box.close()
        for signal, slot in self._connections:
            with contextlib.suppress(ValueError):
                signal.disconnect(slot)
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        self.viewer.dims.events.order.disconnect(self._upright)

    def layer(self, role: str) -> Any:
        """Layer of a role for the case in view, or ``None``."""
        for layer in self.viewer.layers:
            if layer.metadata.get(KEY, {}).get("role") == role:
                return layer
        return None

    def set_visible(self, role: str, visible: bool) -> None:
        """Show or hide one kind of layer, now and for the cases to come."""
        self.visible[role] = visible
        if role == "difference":  # shows itself when it is worked out
            self.overlays.compare()
        elif (layer := self.layer(role)) is not None:
            layer.visible = visible

    def set_opacity(self, role: str, opacity: float) -> None:
        """Set the opacity (0 to 1) of one kind of layer, now and for the cases to come."""
        self.opacity[role] = opacity
        if (layer := self.layer(role)) is not None:
            layer.opacity = opacity

    def set_show_unannotated(self, show: bool) -> None:
        """Tint voxels that nobody annotated."""
        self.show_unannotated = show
        self._recolor()

    def set_grey_window(self, window: tuple[float, float] | None) -> None:
        """Show CT between two Hounsfield units, now and for the cases to come; None for all."""
        self.grey_window = window
        if (view := self.session.view) is not None and view.is_ct:
            for layer in self._layers("image"):
                low, high = self._contrast(view, 0)
                least, most = layer.contrast_limits_range
                layer.contrast_limits_range = (min(low, least), max(high, most))
                layer.contrast_limits = (low, high)

    def _contrast(self, view: CaseView, index: int) -> tuple[float, float]:
        if self.grey_window is not None and view.is_ct:
            return self.grey_window
        return view.grey[index]

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
        layer, view = self.layer("label"), self.session.view
        if layer is not None and view is not None:
            self.viewer.layers.selection.active = layer
            layer.visible = True
            layer.limits.template = view.prediction
            layer.mode = "paint"

    @property
    def axis(self) -> int:
        """Axis across which the slices in view lie; the first one in 3D."""
        return next(iter(self.viewer.dims.not_displayed), 0)

    @property
    def slice_index(self) -> int:
        """Number of the slice in view across ``axis``."""
        view = self.session.view
        if view is None:
            return 0
        place = self.viewer.dims.point[self.axis] / view.image.spacing_mm[self.axis]
        return int(np.clip(round(place), 0, view.image.shape[self.axis] - 1))

    def go_to_slice(self, index: int, axis: int) -> None:
        """Show a slice across an axis."""
        view = self.session.view
        if view is not None:
            self._turns.skip(self._centre)
            index = int(np.clip(index, 0, view.image.shape[axis] - 1))
            self.viewer.dims.set_point(axis, index * view.image.spacing_mm[axis])

    def centre_on(self, place: tuple[float, float, float]) -> None:
        """Move slices and camera to a place ``(z, y, x)`` in mm."""
        self._turns.skip(self._centre)
        self._move_to(place)
        if self.viewer.dims.ndisplay == 2:
            shown = [place[axis] for axis in self.viewer.dims.displayed]
            self.viewer.scene.camera.center = (0.0, *shown)

    def _move_to(self, place: Sequence[float]) -> None:
        """Show the slices nearest to a place in mm."""
        if (view := self.session.view) is not None:
            # Between two slices napari's sliders go on to one of them, and all is drawn twice.
            spacing = view.image.spacing_mm
            self.viewer.dims.point = tuple(
                round(p / s) * s for p, s in zip(place, spacing, strict=True)
            )

    # ---- From the session to the layers ------------------------------------------------------

    def _show(self, view: CaseView | None) -> None:
        if view is None:
            self._put_brush_down()
        with self.own_work():
            if view is None:
                self._turns.stop()
                self._remove_all()
                return
            scans = self._layers("image")
            if len(scans) != view.image.channels or self.layer("label") is None:
                self._remove_all()
                self._add_layers(view)
            else:  # making layers anew takes napari seconds
                self._change_layers(view, scans)
            label = self.layer("label")
            if label.data is not view.label:  # whatever napari made of it is what gets painted
                view.label = label.data
            self.session.label_writer = label.write
            self.viewer.layers.selection.active = label
            self.overlays.veil()
        self._upright()
        self.viewer.reset_view()
        # Each of these stops the window for a while, by what napari does.
        self._turns.start([self._centre, *self.overlays.steps(), self.box.restore])

    def _centre(self) -> None:
        if (view := self.session.view) is not None:
            self._move_to(
                [n * s / 2 for n, s in zip(view.image.shape, view.image.spacing_mm, strict=True)]
            )

    def _upright(self, *_: object) -> None:
        """Show the head above the feet in slices that hold both; napari draws axes downwards."""
        if self.session.view is not None:
            upward = self.viewer.dims.order[-2] == 0  # the axis towards superior is vertical
            self.viewer.scene.camera.orientation2d = ("up" if upward else "down", "right")

    def _add_layers(self, view: CaseView) -> None:
        for index in reversed(range(view.image.channels)):
            layer = Image(
                _channel(view, index),
                name=self._scan_name(view, index),
                contrast_limits=self._contrast(view, index),
                **self.settings(view, "image"),
            )
            layer.visible = self.visible["image"] and index == 0
            self.viewer.add_layer(layer)
        label = CaseLabels(
            view.label,
            image=_channel(view, 0),
            name="label",
            colormap=self._colormap(),
            **self.settings(view, "label"),
        )
        self.viewer.add_layer(label)
        self.follow_eye(label)
        label.selected_label = self.brush
        label.n_edit_dimensions = 3 if self.brush_3d else 2
        label.brush_mm = self.brush_mm
        label.limits.grey_range = self.session.drawing.paint_range
        label.events.data.connect(self._data_replaced)
        label.events.selected_label.connect(self._brush_changed)
        label.events.brush_size.connect(self._size_changed)
        label.events.n_edit_dimensions.connect(self._size_changed)

    def _change_layers(self, view: CaseView, scans: list[Any]) -> None:
        """Put another case into the layers that are there; brush, tool and visibility stay."""
        for index, layer in zip(reversed(range(view.image.channels)), scans, strict=True):
            self.place(layer, view, "image")
            layer.data = _channel(view, index)
            layer.name = self._scan_name(view, index)
            layer.reset_contrast_limits_range()
            layer.contrast_limits = self._contrast(view, index)
        label = self.layer("label")
        self.place(label, view, "label")
        label.show(view.label, _channel(view, 0))
        label.brush_mm = self.brush_mm

    def place(self, layer: Layer, view: CaseView, role: str) -> None:
        """Bring a layer to where a case lies, and mark it as that case's."""
        settings = self.settings(view, role)
        layer.metadata = settings["metadata"]
        if tuple(layer.scale) != tuple(settings["scale"]):
            layer.scale = settings["scale"]

    def _scan_name(self, view: CaseView, index: int) -> str:
        names = self.session.project.channels if self.session.project else []
        return f"{view.id} {names[index]}" if view.image.array.ndim == 4 else view.id

    def _layers(self, role: str) -> list[Any]:
        """Layers of a role, bottom to top."""
        return [
            layer for layer in self.viewer.layers if layer.metadata.get(KEY, {}).get("role") == role
        ]

    def _put_brush_down(self) -> None:
        """Before all layers go.

        Without any, OpenGL may draw from what was just freed for the brush, and the program
        crashes; so the brush is put down and drawn away first.
        """
        if (label := self.layer("label")) is not None:
            label.mode = "pan_zoom"
            if isinstance(self.viewer, Viewer) and self._window_shown():
                self.viewer.screenshot(canvas_only=True, flash=False)

    def _remove_all(self) -> None:
        own = [layer for layer in self.viewer.layers if "role" in layer.metadata.get(KEY, {})]
        for layer in own:  # scans that were opened as files carry the key, too
            self.viewer.layers.remove(layer)

    def insert(self, layer: Layer, *, on_top: bool = False) -> None:
        """Add below the label, or above all; the label stays selected."""
        label = self.layer("label")
        active = self.viewer.layers.selection.active
        index = len(self.viewer.layers)
        if label is not None and not on_top:
            index = self.viewer.layers.index(label)
        self.viewer.layers.insert(index, layer)
        self.viewer.layers.selection.active = active

    def follow_eye(self, layer: Layer) -> None:
        """Remember when a layer is shown or hidden in napari's own list."""

        def clicked(_: object) -> None:
            role = layer.metadata[KEY]["role"]
            if not self._working and layer.visible != self.visible[role]:
                self.set_visible(role, layer.visible)
                self.eye_clicked.emit(role, layer.visible)

        layer.events.visible.connect(clicked)

    def settings(self, view: CaseView, role: str) -> dict[str, Any]:
        """What every layer of a case is made with: place, units, opacity, mark."""
        return {
            "scale": view.image.spacing_mm,
            "units": ("mm",) * 3,
            "axis_labels": AXIS_LABELS,
            "metadata": {KEY: {"case": view.id, "role": role, "source": view.image.source}},
            "opacity": self.opacity[role],
            "visible": self.visible[role],
        }

    def _label_edited(self, _: str) -> None:
        if (layer := self.layer("label")) is not None:
            layer.refresh()

    def _brush_changed(self, event: Any) -> None:
        """Follow napari's own controls, but never to a value that no structure has."""
        value = int(event.source.selected_label)
        known = {c.value for c in self._classes()}
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

    def _limit(self, grey: tuple[float, float] | None) -> None:
        if (layer := self.layer("label")) is not None:
            layer.limits.grey_range = grey

    # ---- Colours -----------------------------------------------------------------------------

    def _classes(self) -> list[ClassInfo]:
        return self.session.project.classes if self.session.project is not None else []

    def _colormap(self) -> DirectLabelColormap:
        return label_colormap(self._classes(), self.show_unannotated)

    def _project_changed(self, _: object) -> None:
        known = [c.value for c in self._classes()]
        if known and self.brush not in known:
            self.brush = known[0]
        self._recolor()

    def _recolor(self, *_: object) -> None:
        wanted = self._colormap()
        for role in ("label", "prediction", "proposal"):
            layer = self.layer(role)
            if layer is not None and not same_colors(layer.colormap, wanted):
                layer.colormap = wanted

    # ---- From the layers to the session ------------------------------------------------------

    def _data_replaced(self, event: Any) -> None:
        view, layer = self.session.view, event.source
        if view is None or layer.data is view.label or self._working:
            return
        if layer.data.shape == view.label.shape and layer.data.dtype == np.uint8:
            view.label = layer.data
        else:
            self.session.message.emit(
                "warning", "The label layer was given other data; it is no longer saved from there."
            )

    def _on_removed(self, event: Any) -> None:
        """Save when somebody removes the label layer by hand; it comes back with the case."""
        view = self.session.view
        if view is None or self._working or getattr(event.value, "data", None) is not view.label:
            return
        self.session.save_label()
        self.session.label_writer = None
        self.session.message.emit(
            "info", "The label layer was removed. Click the case again to bring it back."
        )

    @property
    def working(self) -> bool:
        """Whether the program itself is changing layers."""
        return self._working

    @contextlib.contextmanager
    def own_work(self) -> Iterator[None]:
        """While layers are changed by the program itself, nothing is heard as a person's doing."""
        before, self._working = self._working, True
        try:
            yield
        finally:
            self._working = before


def _channel(view: CaseView, index: int) -> npt.NDArray[Any]:
    """One channel of a case's scan, (D, H, W)."""
    array: npt.NDArray[Any] = view.image.array
    return array if array.ndim == 3 else np.asarray(array[index])
