"""The active case as napari layers, and edits of the layers back to the session.

Every layer of a case has a scale in millimeters, units and axis labels, so that all are aligned.
Painting changes the session's array in place; a timer detects changes by brush, fill or undo and
saves them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from napari.components import ViewerModel
from qtpy.QtCore import QObject, QTimer

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.hotspots import RADIUS_MM
from napari_dycon.core.text import escape_rich_text
from napari_dycon.session import Session
from napari_dycon.widgets.background.interaction import InteractionMonitor
from napari_dycon.widgets.layers.camera import pan_to_region
from napari_dycon.widgets.layers.deferred_steps import DeferredSteps
from napari_dycon.widgets.layers.intensity_window import IntensityWindow
from napari_dycon.widgets.layers.label_layer import CaseLabels
from napari_dycon.widgets.layers.layer_stack import CaseKey
from napari_dycon.widgets.layers.napari_layers import CaseImage
from napari_dycon.widgets.layers.overlays import Overlays
from napari_dycon.widgets.layers.painting import PaintedLayers
from napari_dycon.widgets.layers.readout import describe_voxel
from napari_dycon.widgets.layers.roi_layer import RoiController

AUTOSAVE_MS = 1000
MAX_UNSAVED_S = 2.0  # while the user does not pause


class CaseLayers(PaintedLayers):
    """Manages the layers of the active case and the position in it."""

    def __init__(
        self,
        session: Session,
        viewer: ViewerModel,
        parent: QObject,
        is_window_visible: Callable[[], bool] = lambda: False,
        interactions: InteractionMonitor | None = None,
    ) -> None:
        super().__init__(session, viewer, parent, is_window_visible)
        self.overlays = Overlays(self)
        self.roi = RoiController(self)
        self.intensity_window = IntensityWindow(self)
        self._interactions = interactions or InteractionMonitor()
        self._connections: tuple[tuple[Any, Callable[..., object]], ...] = (
            (viewer.camera.events, self._interactions.note),
            (self.intensity_window.changed, self._interactions.note),
            (session.case_shown, self._show_case),
            (session.prediction_changed, self._on_prediction_changed),
            (session.label_edited, self._on_label_edited),
            (session.label_saved, self.overlays.update_difference_later),
            (session.project_changed, self._on_project_changed),
            (session.cases_changed, self.update_colormaps),
            (session.annotation.proposal_changed, self.overlays.show_proposal),
        )
        for signal, slot in self._connections:
            signal.connect(slot)
        self._deferred_steps = DeferredSteps(self)
        # Where the user was in each case, in mm, by project and case.
        self._positions: dict[CaseKey, tuple[float, ...]] = {}
        self._shown_key: CaseKey | None = None
        self._autosave_timer = QTimer(self)
        self._autosave_timer.timeout.connect(self._autosave)
        self._autosave_timer.start(AUTOSAVE_MS)
        self._last_autosave = time.monotonic()

    def close(self) -> None:
        """Release the viewer and the session.

        The layers are removed, since they would no longer be saved.
        """
        self._autosave_timer.stop()
        self._deferred_steps.stop()
        self._disconnect_brush()
        with self.suppress_events():
            self.remove_all()
        self.roi.close()
        for signal, slot in self._connections:
            with contextlib.suppress(ValueError):
                signal.disconnect(slot)

    def _autosave(self) -> None:
        """Save what changed, between strokes rather than during one."""
        now = time.monotonic()
        if self._interactions.remaining_s == 0 or now - self._last_autosave > MAX_UNSAVED_S:
            self._last_autosave = now
            self.session.save_label()

    def set_visible(self, role: str, visible: bool) -> None:
        """Show or hide one kind of layer, for this and later cases."""
        super().set_visible(role, visible)
        if role == "difference":  # shown once it is computed
            self.overlays.update_difference()

    def set_show_unannotated(self, show: bool) -> None:
        """Highlight unannotated voxels."""
        self.show_unannotated = show
        self.update_colormaps()

    def go_to_slice(self, index: int, axis: int) -> None:
        """Show a slice along an axis."""
        case = self.session.case
        if case is not None:
            self._deferred_steps.skip(self._center_on_case)
            index = int(np.clip(index, 0, case.image.shape[axis] - 1))
            self.viewer.dims.set_point(axis, index * case.image.spacing_mm[axis])

    def center_on(self, position_mm: tuple[float, float, float]) -> None:
        """Show a region around ``(z, y, x)`` in mm: its slices, a circle, and pan if necessary."""
        self._deferred_steps.skip(self._center_on_case)
        self._move_to(position_mm)
        self.marker.show(position_mm)
        if self.viewer.dims.ndisplay == 2 and (case := self.session.case) is not None:
            pan_to_region(self.viewer, position_mm, RADIUS_MM, case.image)

    def _move_to(self, position_mm: Sequence[float]) -> None:
        """Show the slices nearest to a position in mm."""
        if (case := self.session.case) is not None:
            # Positions between slices make napari's sliders snap, which draws everything twice.
            spacing = case.image.spacing_mm
            self.viewer.dims.point = tuple(
                round(p / s) * s for p, s in zip(position_mm, spacing, strict=True)
            )

    def describe_position(self, position_mm: Sequence[float], axis: int | None = None) -> str:
        """Describe slice, intensity and structure at a position; empty outside of the scan.

        Parameters
        ----------
        axis : axis along which the slice is counted; by default that of the active view, and empty
            in the 3D view, whose positions are in no slice
        """
        case = self.session.case
        if axis is None and self.is_3d:
            return ""
        if case is None or len(position_mm) != len(case.image.spacing_mm):
            return ""
        z, y, x = (
            round(float(p) / s) for p, s in zip(position_mm, case.image.spacing_mm, strict=True)
        )
        channel = self.intensity_window.channel
        names = self.intensity_window.channel_names()
        name = names[channel] if channel < len(names) else ""
        return describe_voxel(
            case, self.axis if axis is None else axis, (z, y, x), self.classes(), (channel, name)
        )

    # ---- From the session to the layers ------------------------------------------------------

    def _show_case(self, case: ActiveCase | None) -> None:
        self.cancel_click()  # it was meant for the case before
        self._remember_position()
        self._shown_key = None if case is None else self.make_case_key(case)
        if case is None:
            self._deactivate_brush()
        with self.suppress_events():
            if case is None:
                self._deferred_steps.stop()
                self.placing_case.emit(False)
                self.remove_all()
                return
            self.intensity_window.start_case(case)
            image_layers = self.find_layers("image")
            if len(image_layers) != case.image.channels or self.find_layer("label") is None:
                self.remove_all()
                self._add_layers(case)
            else:  # recreating layers takes napari seconds
                self._update_layers(case, image_layers)
            label = self.find_layer("label")
            if label.data is not case.label:  # napari paints its own copy if it converted the data
                case.label = label.data
            self.session.label_writer = label.write_region
            self.viewer.layers.selection.active = label
            self.overlays.hide_until_loaded()
        # Each of these blocks the window for a while inside napari.
        self._deferred_steps.start(
            [
                self.viewer.reset_view,
                self._center_on_case,
                partial(self.placing_case.emit, False),
                *self.overlays.build_steps(),
                self.roi.restore,
            ]
        )
        self.placing_case.emit(True)

    def _on_prediction_changed(self, case: ActiveCase) -> None:
        label = self.find_layer("label")
        if label is not None and label.limits.reference_label is not None:
            label.limits.reference_label = case.prediction  # the brush copies what is shown
        self._deferred_steps.add(self.overlays.prediction_steps)

    def _remember_position(self) -> None:
        """Keep the slices of the case that is left, unless it was not placed yet."""
        is_placed = not self._deferred_steps.is_pending(self._center_on_case)
        if self._shown_key is not None and is_placed and self.find_layer("label") is not None:
            self._positions[self._shown_key] = tuple(self.viewer.dims.point)

    def _center_on_case(self) -> None:
        """Show the slices that were shown when the case was left, or the center."""
        if (case := self.session.case) is None:
            return
        center = [n * s / 2 for n, s in zip(case.image.shape, case.image.spacing_mm, strict=True)]
        self._move_to(self._positions.get(self.make_case_key(case), center))

    def _add_layers(self, case: ActiveCase) -> None:
        for index in reversed(range(case.image.channels)):
            layer = CaseImage(
                case.get_channel(index),
                name=self._format_image_name(case, index),
                contrast_limits=self.intensity_window.get_range(case, index),
                **self.build_settings(case, "image"),
            )
            layer.visible = self.visible["image"] and index == 0
            layer.describe_position = self.describe_position
            self.intensity_window.watch(layer)
            self.viewer.add_layer(layer)
            self.guard.protect(layer)
        label = CaseLabels(
            case.label,
            image=case.get_channel(0),
            read_only=bool(self.session.edit_blocked_reason()),
            keeps_array=True,
            on_unknown_value=self._report_unknown_value,
            name="label",
            colormap=self.build_colormap("label"),
            **self.build_settings(case, "label"),
        )
        label.contour = 1
        label.describe_position = self.describe_position
        self.viewer.add_layer(label)
        self.track_visibility(label)
        self.guard.protect(label)
        # Connecting to ``emit`` itself would emit at once.
        label.limits.history_stepped.connect(self._on_history_stepped)
        # Painted here, painted in another view, or shown in another slice.
        for emitter in (label.events.labels_update, label.events.set_data):
            emitter.connect(self._interactions.note)
        self._restore_brush(label)

    def _update_layers(self, case: ActiveCase, image_layers: list[Any]) -> None:
        """Show another case in the existing layers; brush, tool and visibility are kept."""
        for index, layer in zip(reversed(range(case.image.channels)), image_layers, strict=True):
            self.assign_to_case(layer, case, "image")
            layer.data = case.get_channel(index)
            layer.name = self._format_image_name(case, index)
            layer.contrast_limits_range = case.statistics[index].full
            self.intensity_window.apply(layer, self.intensity_window.get_range(case, index))
        label = self.find_layer("label")
        self.assign_to_case(label, case, "label")
        label.show_case(case.label, case.get_channel(0))
        label.brush_mm = self.brush_mm

    def _format_image_name(self, case: ActiveCase, index: int) -> str:
        channels = self.session.project.channels if self.session.project else []
        # napari shows the names of layers in its status bar, too.
        channel = f" {channels[index]}" if case.image.array.ndim == 4 else ""
        return escape_rich_text(f"{case.display_name}{channel}")

    def _on_history_stepped(self) -> None:
        self.session.state.edit_undone.emit()

    def _on_label_edited(self, _: str) -> None:
        if (layer := self.find_layer("label")) is not None:
            layer.refresh()

    # ---- Colors -----------------------------------------------------------------------------

    def _on_project_changed(self, _: object) -> None:
        class_values = [c.value for c in self.classes()]
        if class_values and self.brush_value not in class_values:
            self.brush_value = class_values[0]
        self.update_colormaps()
