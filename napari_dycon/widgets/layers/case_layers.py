"""The session's case as napari layers, and what is drawn on them back to the session.

Every layer of a case carries scale in millimeters, units and axis labels, so that all lie over each
other. Painting changes the session's own array in place; a timer notices any change, be it by
brush, fill or undo, and has it saved.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel
from napari.layers import Image
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QObject, QTimer

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.core.text import escape_rich_text
from napari_dycon.session import Session
from napari_dycon.widgets.layers.colormaps import label_colormap, same_colors
from napari_dycon.widgets.layers.deferred_steps import Turns
from napari_dycon.widgets.layers.label_layer import CaseLabels
from napari_dycon.widgets.layers.layer_stack import AXIS_LABELS, KEY
from napari_dycon.widgets.layers.overlays import Overlays
from napari_dycon.widgets.layers.painting import PaintedLayers
from napari_dycon.widgets.layers.roi_layer import GrowBox

__all__ = ["AXIS_LABELS", "KEY", "CaseLayers"]
AUTOSAVE_MS = 1000


class CaseLayers(PaintedLayers):
    """Keeps the layers of the case in view, and shows where in it one is."""

    def __init__(
        self,
        session: Session,
        viewer: ViewerModel,
        parent: QObject,
        window_shown: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(session, viewer, parent, window_shown)
        self.overlays = Overlays(self)
        self.box = GrowBox(self)
        self.show_unannotated = False
        self.gray_window: tuple[float, float] | None = None  # that CT is looked at in
        self._connections = (
            (session.case_shown, self._show),
            (session.prediction_changed, self.overlays.refresh),
            (session.label_edited, self._label_edited),
            (session.label_saved, self.overlays.compare),
            (session.project_changed, self._project_changed),
            (session.cases_changed, self._recolor),
            (session.annotation.proposal_changed, self.overlays.propose),
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
        self._release_brush()
        with self.own_work():
            self.remove_all()
        self.box.close()
        for signal, slot in self._connections:
            with contextlib.suppress(ValueError):
                signal.disconnect(slot)
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        self.viewer.dims.events.order.disconnect(self._upright)

    def set_visible(self, role: str, visible: bool) -> None:
        """Show or hide one kind of layer, now and for the cases to come."""
        if role == "difference":  # shows itself when it is worked out
            self.visible[role] = visible
            self.overlays.compare()
        else:
            super().set_visible(role, visible)

    def set_show_unannotated(self, show: bool) -> None:
        """Tint voxels that nobody annotated."""
        self.show_unannotated = show
        self._recolor()

    def set_gray_window(self, window: tuple[float, float] | None) -> None:
        """Show CT between two Hounsfield units, now and for the cases to come; None for all."""
        self.gray_window = window
        if (view := self.session.case) is not None and view.is_ct:
            for layer in self.layers_of("image"):
                low, high = self._contrast(view, 0)
                least, most = layer.contrast_limits_range
                layer.contrast_limits_range = (min(low, least), max(high, most))
                layer.contrast_limits = (low, high)

    def _contrast(self, view: ActiveCase, index: int) -> tuple[float, float]:
        if self.gray_window is not None and view.is_ct:
            return self.gray_window
        return view.intensity_ranges[index]

    @property
    def axis(self) -> int:
        """Axis across which the slices in view lie; the first one in 3D."""
        return next(iter(self.viewer.dims.not_displayed), 0)

    @property
    def slice_index(self) -> int:
        """Number of the slice in view across ``axis``."""
        view = self.session.case
        if view is None:
            return 0
        place = self.viewer.dims.point[self.axis] / view.image.spacing_mm[self.axis]
        return int(np.clip(round(place), 0, view.image.shape[self.axis] - 1))

    def go_to_slice(self, index: int, axis: int) -> None:
        """Show a slice across an axis."""
        view = self.session.case
        if view is not None:
            self._turns.skip(self._center)
            index = int(np.clip(index, 0, view.image.shape[axis] - 1))
            self.viewer.dims.set_point(axis, index * view.image.spacing_mm[axis])

    def center_on(self, place: tuple[float, float, float]) -> None:
        """Move slices and camera to a place ``(z, y, x)`` in mm."""
        self._turns.skip(self._center)
        self._move_to(place)
        if self.viewer.dims.ndisplay == 2:
            shown = [place[axis] for axis in self.viewer.dims.displayed]
            self.viewer.scene.camera.center = (0.0, *shown)

    def _move_to(self, place: Sequence[float]) -> None:
        """Show the slices nearest to a place in mm."""
        if (view := self.session.case) is not None:
            # Between two slices napari's sliders go on to one of them, and all is drawn twice.
            spacing = view.image.spacing_mm
            self.viewer.dims.point = tuple(
                round(p / s) * s for p, s in zip(place, spacing, strict=True)
            )

    # ---- From the session to the layers ------------------------------------------------------

    def _show(self, view: ActiveCase | None) -> None:
        if view is None:
            self._put_brush_down()
        with self.own_work():
            if view is None:
                self._turns.stop()
                self.remove_all()
                return
            scans = self.layers_of("image")
            if len(scans) != view.image.channels or self.layer("label") is None:
                self.remove_all()
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
        # Each of these stops the window for a while, by what napari does.
        self._turns.start(
            [self.viewer.reset_view, self._center, *self.overlays.steps(), self.box.restore]
        )

    def _center(self) -> None:
        if (view := self.session.case) is not None:
            self._move_to(
                [n * s / 2 for n, s in zip(view.image.shape, view.image.spacing_mm, strict=True)]
            )

    def _upright(self, *_: object) -> None:
        """Show the head above the feet in slices that hold both; napari draws axes downwards."""
        if self.session.case is not None:
            upward = self.viewer.dims.order[-2] == 0  # the axis towards superior is vertical
            self.viewer.scene.camera.orientation2d = ("up" if upward else "down", "right")

    def _add_layers(self, view: ActiveCase) -> None:
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
            only_shown=bool(self.session.edit_blocked_reason()),
            name="label",
            colormap=self._colormap(),
            **self.settings(view, "label"),
        )
        self.viewer.add_layer(label)
        self.follow_eye(label)
        label.events.data.connect(self._data_replaced)
        self._hand_brush_to(label)

    def _change_layers(self, view: ActiveCase, scans: list[Any]) -> None:
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

    def _scan_name(self, view: ActiveCase, index: int) -> str:
        names = self.session.project.channels if self.session.project else []
        # napari shows the names of layers in its status bar, too.
        return escape_rich_text(
            f"{view.id} {names[index]}" if view.image.array.ndim == 4 else view.id
        )

    def _label_edited(self, _: str) -> None:
        if (layer := self.layer("label")) is not None:
            layer.refresh()

    # ---- Colors -----------------------------------------------------------------------------

    def _colormap(self) -> DirectLabelColormap:
        return label_colormap(self.classes(), self.show_unannotated)

    def _project_changed(self, _: object) -> None:
        known = [c.value for c in self.classes()]
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
        view, layer = self.session.case, event.source
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
        view = self.session.case
        if view is None or self._working or getattr(event.value, "data", None) is not view.label:
            return
        self.session.save_label()
        self.session.label_writer = None
        self.session.message.emit(
            "info", "The label layer was removed. Click the case again to bring it back."
        )


def _channel(view: ActiveCase, index: int) -> npt.NDArray[Any]:
    """One channel of a case's scan, (D, H, W)."""
    array: npt.NDArray[Any] = view.image.array
    return array if array.ndim == 3 else np.asarray(array[index])
