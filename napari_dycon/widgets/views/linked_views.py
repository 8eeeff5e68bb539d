"""Axial, coronal and sagittal views of the active case, linked by one position.

napari's own canvas is the main view. Two more canvases beside it show the other planes. The
position is that of napari's sliders, ``viewer.dims.point``, for all axes.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

from napari.components import ViewerModel
from napari.qt import QtViewer
from napari.viewer import Viewer
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtGui import QCursor
from qtpy.QtWidgets import QSplitter

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.intensity_windows import choose_decimals, format_intensity
from napari_dycon.widgets.layers.case_layers import CaseLayers
from napari_dycon.widgets.layers.deferred_steps import DeferredSteps
from napari_dycon.widgets.layers.napari_internals import (
    get_central_layout,
    get_qt_viewer,
    make_qt_viewer,
)
from napari_dycon.widgets.views.gestures import ViewGestures
from napari_dycon.widgets.views.layer_mirror import LayerMirror
from napari_dycon.widgets.views.mouse import CanvasMouse
from napari_dycon.widgets.views.planes import Plane, choose_radiological_plane
from napari_dycon.widgets.views.resize_handle import ResizeHandle
from napari_dycon.widgets.views.view import Position, View

SIDE_FRACTION = 0.38  # width of the side views, of the space for all of them
BACKGROUND = "black"  # as in radiology viewers, in both themes


class SideView(View):
    """A further canvas with copies of all layers."""

    def __init__(self, viewer: Viewer, layers: CaseLayers, plane: Plane) -> None:
        model = ViewerModel(title=plane.title)
        self._own_widget: QtViewer | None = make_qt_viewer(model)
        super().__init__(model, self._own_widget, plane)
        model.canvas.background_color_override = BACKGROUND
        self.mirror = LayerMirror(viewer, model, self, layers.is_layer_shown_in_slices)
        self._layers = layers
        layers.visibility_applied.connect(self.mirror.update_visibility)

    def show_slice(self) -> None:
        """Show the slice at the position of the crosshair."""
        axis, dims = self.plane.value, self.model.dims
        if dims.ndim == len(self.position) and dims.point[axis] != self.position[axis]:
            dims.set_point(axis, self.position[axis])
            self.update_annotations()

    def close(self) -> None:
        """Release the copies of the layers and close the canvas."""
        super().close()
        self._layers.visibility_applied.disconnect(self.mirror.update_visibility)
        self.mirror.close()
        widget, self._own_widget = self._own_widget, None
        if widget is not None:
            widget.close()
            widget.setParent(None)
            widget.deleteLater()


class LinkedViews(QObject):
    """The main view and, if they are shown, the two views beside it."""

    arrangement_changed = Signal()  # side views, planes or crosshair

    def __init__(self, viewer: Viewer, layers: CaseLayers) -> None:
        super().__init__(layers)
        self._viewer = viewer
        self._layers = layers
        self._session = layers.session
        self.intensity_window = layers.intensity_window
        self.main_view = View(viewer, get_qt_viewer(viewer), Plane.AXIAL)
        self.side_views: list[SideView] = []
        self.gestures = ViewGestures(viewer, layers, self)
        self._mice = {self.main_view: CanvasMouse(self.main_view, self.gestures)}
        self._column: QSplitter | None = None
        self._handle: ResizeHandle | None = None
        self._active: View = self.main_view
        self._deferred_steps = DeferredSteps(self)
        self._position: Position = (0.0, 0.0, 0.0)
        self._shows_crosshair = True
        self._connections: tuple[tuple[Any, Any], ...] = (
            (self._session.case_shown, self._on_case_shown),
            (viewer.dims.events.order, self._on_order_changed),
            (viewer.dims.events.point, self._on_position_changed),
            (viewer.dims.events.ndisplay, self._on_ndisplay_changed),
            (viewer.events.reset_view, self._on_reset_view),
            (self.intensity_window.changed, self._show_window_text),
            (self.gestures.used, self.activate),
            (layers.placing_case, self._on_placing_case),
            (layers.visibility_applied, self._show_region),
            (self._session.annotation.roi_changed, self._show_region),
            (self._session.prediction_changed, self._update_annotations),
            (self._session.cases_changed, self._update_annotations),  # names of cases
            *(
                (signal, self.gestures.update_description)
                for signal in (
                    self._session.case_shown,
                    self._session.label_edited,
                    self._session.label_saved,
                    self._session.prediction_changed,
                    self._session.state.edit_undone,
                    layers.history_changed,
                )
            ),
        )
        for emitter, handler in self._connections:
            emitter.connect(handler)
        self._on_case_shown(self._session.case)

    def close(self) -> None:
        """Remove the side views and leave napari's canvas as it was."""
        self._on_placing_case(False)
        self._deferred_steps.stop()
        for emitter, handler in self._connections:
            with contextlib.suppress(ValueError, TypeError, RuntimeError):
                emitter.disconnect(handler)
        self.show_side_views(False)
        self._mice.pop(self.main_view).close()
        self.main_view.close()
        self._viewer.canvas.background_color_override = None

    # ---- Arrangement -------------------------------------------------------------------------

    @property
    def views(self) -> list[View]:
        """All views that are shown, the main one first."""
        return [self.main_view, *self.side_views]

    @property
    def active_view(self) -> View:
        """The view that was used last; commands for a slice act on it."""
        return self._active

    @property
    def has_side_views(self) -> bool:
        """Whether all three planes are shown."""
        return bool(self.side_views)

    def show_side_views(self, show: bool) -> None:
        """Show or hide the two other planes beside the main view."""
        if show == self.has_side_views:
            return
        if show:
            self._add_side_views()
        else:
            self._remove_side_views()
        self.arrangement_changed.emit()

    def toggle_side_views(self) -> None:
        """Show the other planes, or hide them."""
        self.show_side_views(not self.has_side_views)

    def show_plane(self, plane: Plane) -> None:
        """Show a plane in the main view, and the others beside it."""
        has_changed = plane is not self.main_view.plane
        self.main_view.plane = plane  # first, so that the change of the order is expected
        if tuple(self._viewer.dims.order) != plane.order:
            self._viewer.dims.order = plane.order
        self._apply_plane(plane)
        if has_changed:
            self._viewer.reset_view()

    @property
    def shows_crosshair(self) -> bool:
        """Whether lines mark the position in all views."""
        return self._shows_crosshair

    def show_crosshair(self, show: bool) -> None:
        """Show or hide the lines that mark the position."""
        self._shows_crosshair = show
        for view in self.views:
            view.shows_crosshair = show
            view.update_annotations()
        self.arrangement_changed.emit()

    def _add_side_views(self) -> None:
        layout = get_central_layout(self._viewer)
        column = QSplitter(Qt.Orientation.Vertical)
        for plane in self._side_planes():
            view = SideView(self._viewer, self._layers, plane)
            view.shows_crosshair = self._shows_crosshair
            view.model.mouse_drag_callbacks.append(self._forward_click)
            view.mirror.filled.connect(partial(self._start_side_view, view))
            self._mice[view] = CanvasMouse(view, self.gestures)
            self.side_views.append(view)
            column.addWidget(view.qt_viewer)
        self._column = column
        self._handle = ResizeHandle(layout, column, SIDE_FRACTION)
        layout.addWidget(self._handle)
        layout.addWidget(column)
        self._handle.apply()
        self._apply_plane(self.main_view.plane)
        self._on_case_shown(self._session.case)
        self._on_reset_view()

    def _start_side_view(self, view: SideView) -> None:
        """Show plane and position in a view that has just received its first layer."""
        self._apply_plane(self.main_view.plane)
        view.fit()

    def _remove_side_views(self) -> None:
        self.activate(self.main_view)
        self._deferred_steps.stop()
        for view in self.side_views:
            self._mice.pop(view).close()
            self.gestures.leave(view)
            view.close()
        self.side_views = []
        for widget in (self._handle, self._column):
            if widget is not None:
                widget.hide()
                widget.setParent(None)
                widget.deleteLater()
        self._handle = self._column = None

    def _side_planes(self) -> list[Plane]:
        return [
            plane
            for plane in (Plane.AXIAL, Plane.CORONAL, Plane.SAGITTAL)
            if plane is not self.main_view.plane
        ]

    def _apply_plane(self, plane: Plane) -> None:
        self.main_view.show_plane(plane)
        for view, side_plane in zip(self.side_views, self._side_planes(), strict=False):
            if self._session.case is not None and view.model.dims.ndim == len(plane.order):
                view.show_plane(side_plane)
        self._layers.set_active_axis(self._active.plane.value)
        self._follow_position()
        self.arrangement_changed.emit()

    def _on_order_changed(self, _: Any) -> None:
        """Keep slices in radiological orientation, whichever control of napari was used."""
        order = tuple(self._viewer.dims.order)
        if self._session.case is None or len(order) != len(self.main_view.plane.order):
            return
        if order == self.main_view.plane.order:
            return
        self.show_plane(choose_radiological_plane(order, self.main_view.plane))

    def _on_ndisplay_changed(self, _: Any) -> None:
        self._layers.axis_changed.emit(self._layers.axis)

    def _on_reset_view(self, _: Any = None) -> None:
        for view in self.side_views:
            view.model.reset_view()
        for view in self.views:
            view.fit_scan()

    # ---- Case and position -------------------------------------------------------------------

    def _on_case_shown(self, case: ActiveCase | None) -> None:
        self._viewer.canvas.background_color_override = None if case is None else BACKGROUND
        for view in self.views:
            view.show_case(case)
        if case is not None and len(self._viewer.dims.order) == len(self.main_view.plane.order):
            self.show_plane(self.main_view.plane)
        self._show_window_text()
        self._show_region()
        self._follow_position()

    def _on_placing_case(self, is_placing: bool) -> None:
        """Draw all views once a case is in place, not after each step until then."""
        for view in self.views:
            view.canvas.setUpdatesEnabled(not is_placing)

    def _on_position_changed(self, _: Any) -> None:
        self._follow_position()

    def _follow_position(self) -> None:
        """Show the position of napari's sliders in all views."""
        point = tuple(float(value) for value in self._viewer.dims.point)
        if self._session.case is None or len(point) != len(self._position):
            return
        previous, self._position = self._position, (point[0], point[1], point[2])
        for view in self.views:
            moved = any(previous[axis] != point[axis] for axis in view.plane.displayed_axes)
            is_clicked = view is self.gestures.clicked_view
            view.show_position(self._position, pan=moved and not is_clicked)
        # A slice with all its layers takes napari up to 0.05 s.
        self._deferred_steps.add([view.show_slice for view in self.side_views])
        self.gestures.update_description()

    # ---- The active view -----------------------------------------------------------------------

    def step_active_slice(self, step: int) -> None:
        """Move the active view by slices."""
        self.gestures.step_slice(self._active, step)

    def cursor_position(self) -> Position:
        """Position under the mouse, or the crosshair if the mouse is elsewhere."""
        for view in self.views:
            if view.canvas.underMouse():
                point = view.canvas.mapFromGlobal(QCursor.pos())
                return view.to_position(point.x(), point.y())
        return self._position

    def activate(self, view: View) -> None:
        """Let commands for a slice act on a view, and mark its title."""
        self._active = view
        for other in self.views:
            other.is_active = other is view and self.has_side_views
            other.update_annotations()
        if self._session.case is not None:
            self._layers.set_active_axis(view.plane.value)

    # ---- Texts and forwarded clicks ----------------------------------------------------------

    def _show_region(self, *_: object) -> None:
        """Outline the region of interest in the side views; the main view has a layer for it."""
        is_shown = self._session.case is not None and self._layers.is_shown_in_slices("roi")
        for view in self.side_views:
            view.region = self._session.annotation.roi if is_shown else None
            view.update_annotations()

    def _update_annotations(self, *_: object) -> None:
        for view in self.views:
            view.update_annotations()

    def _show_window_text(self, *_: object) -> None:
        limits = self.intensity_window.range
        text = ""
        if self._session.case is not None and limits is not None:
            low, high = limits
            decimals = choose_decimals(limits)
            width, level = (format_intensity(v, decimals) for v in (high - low, (high + low) / 2))
            text = f"W {width}  L {level}"
        for view in self.views:
            view.window_text = text
            view.update_annotations()

    def _forward_click(self, _: Any, event: Any) -> None:
        """Pass a click in a side view to commands that wait for one in the main view."""
        for callback in list(self._viewer.mouse_drag_callbacks):
            callback(self._viewer, event)
