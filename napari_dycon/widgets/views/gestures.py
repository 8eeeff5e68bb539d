"""What gestures of the mouse do in the views."""

from __future__ import annotations

from napari.viewer import Viewer
from qtpy.QtCore import QObject, Signal

from napari_dycon.core.text import escape_control_characters
from napari_dycon.widgets.layers.case_layers import CaseLayers
from napari_dycon.widgets.views.view import Position, View
from napari_dycon.widgets.window.preferences import get_preferences


class ViewGestures(QObject):
    """Browsing, moving the crosshair, window and level, and the description under the mouse."""

    used = Signal(object)  # View; it becomes the active one

    def __init__(self, viewer: Viewer, layers: CaseLayers, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._layers = layers
        self._session = layers.session
        self._window = layers.intensity_window
        self._window_start: tuple[float, float] = (0.0, 0.0)
        self._hovered: tuple[View, float, float] | None = None  # view and pixel under the mouse
        self.clicked_view: View | None = None  # while a click in it moves the crosshair

    @property
    def wheel_browses(self) -> bool:
        """Whether the wheel goes through slices, a preference."""
        return self._session.case is not None and bool(get_preferences().views.wheel_browses)

    def step_slice(self, view: View, step: int) -> None:
        """Move a view by slices; positive steps go along its axis."""
        case = self._session.case
        if case is not None:
            axis = view.plane.value
            index = round(self._viewer.dims.point[axis] / case.image.spacing_mm[axis])
            self._layers.go_to_slice(index + step, axis)

    def move_cursor(self, view: View, x: float, y: float) -> None:
        """Move the crosshair to a pixel of a view."""
        if self._session.case is None:
            return
        self.clicked_view = view
        try:
            self.move_to(view.to_position(x, y))
        finally:
            self.clicked_view = None

    def move_to(self, position: Position) -> None:
        """Move the crosshair to the voxel at a position in mm, limited to the scan."""
        case = self._session.case
        if case is None:
            return
        shape, spacing_mm = case.image.shape, case.image.spacing_mm
        self._viewer.dims.point = tuple(
            min(max(round(value / spacing), 0), size - 1) * spacing
            for value, spacing, size in zip(position, spacing_mm, shape, strict=True)
        )

    def start_window_drag(self) -> bool:
        """Remember window and level at the start of a drag."""
        limits = self._window.range
        if self._session.case is None or limits is None:
            return False
        self._window_start = limits
        return True

    def drag_window(self, right: float, up: float) -> None:
        """Widen the window to the right, and darken the scan upwards."""
        case = self._session.case
        if case is None:
            return
        low, high = self._window_start
        automatic_low, automatic_high = case.statistics[self._window.channel].automatic
        span = max(automatic_high - automatic_low, high - low)
        width = (high - low) + right * span
        level = (high + low) / 2 + up * span
        width = max(width, 1e-3 * span)
        self._window.set_range(level - width / 2, level + width / 2)

    def hover(self, view: View, x: float, y: float) -> None:
        """Describe what is under the mouse in the view and in the status bar."""
        self._hovered = view, x, y
        if self._session.case is None:
            return
        text = self._layers.describe_position(view.to_position(x, y), view.plane.value)
        view.readout = escape_control_characters(text)
        view.update_annotations()
        if view.model is not self._viewer and text:
            self._viewer.status = view.readout

    def leave(self, view: View) -> None:
        """Clear the description."""
        self._hovered = None
        if view.model is not self._viewer and self._viewer.status == view.readout:
            self._viewer.status = ""  # napari clears only what is under its own canvas
        view.readout = ""
        view.update_annotations()

    def update_description(self, *_: object) -> None:
        """Describe what is under the mouse again, after a change that did not move the mouse."""
        if self._hovered is None:
            self._viewer.status = ""  # it described what has changed
            return
        view, x, y = self._hovered
        if self._session.case is None or not view.is_flat:
            self.leave(view)
        else:
            self.hover(view, x, y)
            self._viewer.status = view.readout  # napari updates it only when the mouse moves

    def is_navigating(self, view: View) -> bool:
        """Whether a click in a view neither paints nor draws, and no command waits for it."""
        if self._layers.is_waiting_for_click:
            return False
        active = view.model.layers.selection.active
        return active is None or str(getattr(active, "mode", "pan_zoom")) == "pan_zoom"
