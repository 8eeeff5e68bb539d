"""The session's case as napari layers, and what is drawn on them back to the session.

Every layer of a case carries scale in millimetres, units and axis labels, so that all lie over each
other. Painting changes the session's own array in place; a timer notices any change, be it by
brush, fill or undo, and has it saved.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import Colormap, DirectLabelColormap
from qtpy.QtCore import QObject, QTimer, Signal

from napari_dycon.case_view import CaseView
from napari_dycon.project.schema import UNANNOTATED, ClassInfo
from napari_dycon.session import Session

AXIS_LABELS = ("superior", "posterior", "left")
KEY = "napari_dycon"
AUTOSAVE_MS = 1000
TRANSPARENT = (0.0, 0.0, 0.0, 0.0)
UNANNOTATED_TINT = (0.5, 0.5, 0.5, 0.45)
# Clear where the network is sure, so that the scan stays visible below.
HEAT = Colormap(
    [[1, 1, 0, 0], [1, 0.85, 0, 0.55], [1, 0.35, 0, 0.85], [0.85, 0, 0.1, 1]], name="uncertainty"
)
COOL = Colormap(
    [[0, 1, 1, 0], [0, 0.8, 1, 0.55], [0.2, 0.3, 1, 0.85], [0.5, 0, 0.8, 1]], name="disagreement"
)
ROLES = ("image", "uncertainty", "disagreement", "prediction", "label")  # bottom to top


class CaseLayers(QObject):
    """Keeps the layers of the case in view; other layers of the viewer are left alone."""

    brush_changed = Signal(int)  # value of the structure to paint, chosen in napari's controls

    def __init__(self, session: Session, viewer: ViewerModel, parent: QObject) -> None:
        super().__init__(parent)
        self.session = session
        self.viewer = viewer
        self.visible = dict.fromkeys(ROLES, True) | {"disagreement": False}
        self.opacity = {"prediction": 0.4, "uncertainty": 0.6, "disagreement": 0.6, "label": 0.6}
        self.threshold = 0.3  # of the heat map; below it nothing is shown
        self.show_unannotated = False
        self.brush = 1  # value of the structure to paint
        self._working = False
        session.case_shown.connect(self._show)
        session.prediction_changed.connect(self._refresh)
        session.label_edited.connect(self._label_edited)
        session.project_changed.connect(self._project_changed)
        session.cases_changed.connect(self._recolor)
        viewer.layers.events.removed.connect(self._on_removed)
        self._timer = QTimer(self)
        self._timer.timeout.connect(session.save_label)
        self._timer.start(AUTOSAVE_MS)

    def close(self) -> None:
        """Release the viewer and the session; the layers of the case go, nobody would save them."""
        self._timer.stop()
        with self._own_work():
            self._remove_all()
        for signal, slot in (
            (self.session.case_shown, self._show),
            (self.session.prediction_changed, self._refresh),
            (self.session.label_edited, self._label_edited),
            (self.session.project_changed, self._project_changed),
            (self.session.cases_changed, self._recolor),
        ):
            with contextlib.suppress(ValueError):
                signal.disconnect(slot)
        self.viewer.layers.events.removed.disconnect(self._on_removed)

    def layer(self, role: str) -> Any:
        """Layer of a role for the case in view, or ``None``."""
        for layer in self.viewer.layers:
            if layer.metadata.get(KEY, {}).get("role") == role:
                return layer
        return None

    def set_visible(self, role: str, visible: bool) -> None:
        """Show or hide one kind of layer, now and for the cases to come."""
        self.visible[role] = visible
        if (layer := self.layer(role)) is not None:
            layer.visible = visible

    def set_opacity(self, role: str, opacity: float) -> None:
        """Set the opacity (0 to 1) of one kind of layer, now and for the cases to come."""
        self.opacity[role] = opacity
        if (layer := self.layer(role)) is not None:
            layer.opacity = opacity

    def set_threshold(self, threshold: float) -> None:
        """Show the heat maps only above this uncertainty."""
        self.threshold = threshold
        for role in ("uncertainty", "disagreement"):
            if (layer := self.layer(role)) is not None:
                layer.contrast_limits = self._limits(role)

    def set_show_unannotated(self, show: bool) -> None:
        """Tint voxels that nobody annotated."""
        self.show_unannotated = show
        self._recolor()

    def centre_on(self, place: tuple[float, float, float]) -> None:
        """Move slices and camera to a place ``(z, y, x)`` in mm."""
        self.viewer.dims.point = place
        if self.viewer.dims.ndisplay == 2:
            shown = [place[axis] for axis in self.viewer.dims.displayed]
            self.viewer.scene.camera.center = (0.0, *shown)

    # ---- From the session to the layers ------------------------------------------------------

    def _show(self, view: CaseView | None) -> None:
        with self._own_work():
            self._remove_all()
            if view is None:
                return
            image = view.image.array
            names = self.session.project.channels if self.session.project else []
            for index in reversed(range(view.image.channels)):
                data = image if image.ndim == 3 else image[index]
                suffix = f" {names[index]}" if image.ndim == 4 else ""
                self.viewer.add_layer(
                    Image(
                        data,
                        name=f"{view.id}{suffix}",
                        contrast_limits=view.grey[index],
                        visible=self.visible["image"] and index == 0,
                        **self._common(view, "image"),
                    )
                )
            label = Labels(
                view.label,
                name="label",
                colormap=self._colormap(),
                opacity=self.opacity["label"],
                visible=self.visible["label"],
                **self._common(view, "label"),
            )
            self.viewer.add_layer(label)
            if label.data is not view.label:  # whatever napari made of it is what gets painted
                view.label = label.data
            label.selected_label = self.brush
            label.events.data.connect(self._data_replaced)
            label.events.selected_label.connect(self._brush_changed)
            self.session.label_writer = label.data_setitem
            self._refresh(view)
            self.viewer.layers.selection.active = label
        self.viewer.reset_view()
        self.viewer.dims.point = tuple(
            n * s / 2 for n, s in zip(view.image.shape, view.image.spacing_mm, strict=True)
        )

    def _remove_all(self) -> None:
        for layer in [layer for layer in self.viewer.layers if KEY in layer.metadata]:
            self.viewer.layers.remove(layer)

    def _refresh(self, view: CaseView) -> None:
        """Show the newest prediction: existing layers get new data, so nothing flickers."""
        with self._own_work():
            self._heat(view, "uncertainty", HEAT)
            self._heat(view, "disagreement", COOL)
            found = self.layer("prediction")
            if view.prediction is None:
                if found is not None:
                    self.viewer.layers.remove(found)
            elif found is not None:
                found.data = view.prediction
            else:
                layer = Labels(
                    view.prediction,
                    name="prediction",
                    colormap=self._colormap(),
                    opacity=self.opacity["prediction"],
                    visible=self.visible["prediction"],
                    **self._common(view, "prediction"),
                )
                layer.editable = False
                self._insert(layer)

    def _heat(self, view: CaseView, role: str, colormap: Colormap) -> None:
        data = getattr(view, role)
        found = self.layer(role)
        if data is None:
            if found is not None:
                self.viewer.layers.remove(found)
        elif found is not None:
            found.data = data
            found.contrast_limits = self._limits(role)
        else:
            layer = Image(
                data,
                name=role,
                colormap=colormap,
                blending="translucent_no_depth",
                contrast_limits=self._limits(role),
                opacity=self.opacity[role],
                visible=self.visible[role],
                **self._common(view, role),
            )
            self._insert(layer)

    def _limits(self, role: str) -> tuple[float, float]:
        """Range of colours of a map: from the threshold on, or higher (see ``MOST_SHOWN``)."""
        floor = self.session.view.floors.get(role, 0.0) if self.session.view else 0.0
        low = max(self.threshold, min(floor, 0.95))
        return low, max(1.0, low + 0.01)

    def _insert(self, layer: Layer) -> None:
        """Add below the label, so that the brush stays on top and selected."""
        label = self.layer("label")
        active = self.viewer.layers.selection.active
        index = self.viewer.layers.index(label) if label is not None else len(self.viewer.layers)
        self.viewer.layers.insert(index, layer)
        self.viewer.layers.selection.active = active

    def _common(self, view: CaseView, role: str) -> dict[str, Any]:
        return {
            "scale": view.image.spacing_mm,
            "units": ("mm",) * 3,
            "axis_labels": AXIS_LABELS,
            "metadata": {KEY: {"case": view.id, "role": role}},
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

    # ---- Colours -----------------------------------------------------------------------------

    def _classes(self) -> list[ClassInfo]:
        return self.session.project.classes if self.session.project is not None else []

    def _colormap(self) -> DirectLabelColormap:
        colors: dict[Any, Any] = {None: TRANSPARENT, 0: TRANSPARENT}
        colors[UNANNOTATED] = UNANNOTATED_TINT if self.show_unannotated else TRANSPARENT
        colors.update({c.value: c.color for c in self._classes()})
        return DirectLabelColormap(color_dict=colors)

    def _project_changed(self, _: object) -> None:
        known = [c.value for c in self._classes()]
        if known and self.brush not in known:
            self.brush = known[0]
        self._recolor()

    def _recolor(self, *_: object) -> None:
        wanted = self._colormap()
        for role in ("label", "prediction"):
            layer = self.layer(role)
            if layer is not None and not _same_colors(layer.colormap, wanted):
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

    @contextlib.contextmanager
    def _own_work(self) -> Iterator[None]:
        before, self._working = self._working, True
        try:
            yield
        finally:
            self._working = before


def _same_colors(a: Any, b: DirectLabelColormap) -> bool:
    mine = getattr(a, "color_dict", None)
    if mine is None or set(mine) != set(b.color_dict):
        return False
    return all(np.allclose(mine[key], b.color_dict[key]) for key in mine)
