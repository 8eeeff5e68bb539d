"""Mouse in a view: slices by the wheel, window and level by the right button, cursor by a click.

An event filter of the canvas sees the mouse before napari does, so the same gestures work whatever
layer and tool are selected. Painting, panning and everything else stay with napari.
"""

from __future__ import annotations

from typing import Protocol

from qtpy.QtCore import QEvent, QObject, QPointF, Qt
from qtpy.QtGui import QMouseEvent, QWheelEvent

from napari_dycon.widgets.views.view import View

CLICK_TOLERANCE_PX = 3
NOTCH = 120  # Qt's angle of one step of a mouse wheel
ZOOM_PER_NOTCH = 1.2


class MouseActions(Protocol):
    """What the gestures do."""

    def step_slice(self, view: View, step: int) -> None:
        """Move a view by slices; positive steps go along its axis."""

    def move_cursor(self, view: View, x: float, y: float) -> None:
        """Move the crosshair to a pixel of a view."""

    def start_window_drag(self) -> bool:
        """Prepare to change window and level; return whether there is a scan to change."""

    def drag_window(self, right: float, up: float) -> None:
        """Change window and level by a distance in fractions of the canvas since the start."""

    def hover(self, view: View, x: float, y: float) -> None:
        """Describe what is under the mouse."""

    def leave(self, view: View) -> None:
        """Clear the description."""

    def activate(self, view: View) -> None:
        """Let commands for a slice act on a view."""

    def is_navigating(self, view: View) -> bool:
        """Whether a click in a view neither paints nor draws."""

    @property
    def wheel_browses(self) -> bool:
        """Whether the wheel goes through slices; otherwise it zooms, as in napari."""


class CanvasMouse(QObject):
    """Event filter of one canvas."""

    def __init__(self, view: View, actions: MouseActions) -> None:
        super().__init__(view)
        self._view = view
        self._actions = actions
        self._notches = 0.0
        self._press: QPointF | None = None  # of the left button, if it may become a click
        self._window_start: QPointF | None = None  # of the right button
        self._is_moving_cursor = False
        view.canvas.installEventFilter(self)

    def close(self) -> None:
        """Stop filtering."""
        self._view.canvas.removeEventFilter(self)

    def eventFilter(self, _: QObject, event: QEvent) -> bool:  # noqa: N802 (Qt's name)
        """Handle a mouse event; ``True`` keeps it from napari."""
        if event.type() == QEvent.Type.Leave:
            self._actions.leave(self._view)
            return False
        if not self._view.is_flat:
            return False
        if isinstance(event, QWheelEvent):
            return self._on_wheel(event)
        if not isinstance(event, QMouseEvent):
            return False
        kind = event.type()
        if kind == QEvent.Type.MouseButtonPress:
            return self._on_press(event)
        if kind == QEvent.Type.MouseMove:
            return self._on_move(event)
        if kind == QEvent.Type.MouseButtonRelease:
            return self._on_release(event)
        # A quick second drag of the right button must not reach napari as a double click.
        return kind == QEvent.Type.MouseButtonDblClick and self._on_double_click(event)

    def _on_wheel(self, event: QWheelEvent) -> bool:
        modifiers = event.modifiers()
        if modifiers & (Qt.KeyboardModifier.AltModifier | Qt.KeyboardModifier.ShiftModifier):
            return False
        notches = event.angleDelta().y() / NOTCH
        is_zoom = bool(modifiers & Qt.KeyboardModifier.ControlModifier)
        if is_zoom == self._actions.wheel_browses:
            position = event.position()
            self._view.zoom_by(ZOOM_PER_NOTCH**notches, position.x(), position.y())
            return True
        self._actions.activate(self._view)
        self._notches += notches
        steps = int(self._notches)
        self._notches -= steps
        if steps:
            self._actions.step_slice(self._view, steps)
        return True

    def _on_press(self, event: QMouseEvent) -> bool:
        position = get_position(event)
        self._actions.activate(self._view)
        if event.button() == Qt.MouseButton.RightButton:
            if event.modifiers() or not self._actions.start_window_drag():
                return False
            self._window_start = position
            return True
        if event.button() != Qt.MouseButton.LeftButton:
            return False
        if event.modifiers() == Qt.KeyboardModifier.ShiftModifier:
            self._is_moving_cursor = True
            self._actions.move_cursor(self._view, position.x(), position.y())
            return True
        is_plain = event.modifiers() == Qt.KeyboardModifier.NoModifier
        self._press = position if is_plain and self._actions.is_navigating(self._view) else None
        return False

    def _on_double_click(self, event: QMouseEvent) -> bool:
        if event.button() == Qt.MouseButton.RightButton:
            return self._on_press(event)
        return False

    def _on_move(self, event: QMouseEvent) -> bool:
        position = get_position(event)
        if self._window_start is not None:
            offset = position - self._window_start
            self._actions.drag_window(
                offset.x() / max(self._view.canvas.width(), 1),
                -offset.y() / max(self._view.canvas.height(), 1),
            )
            return True
        if self._is_moving_cursor:
            self._actions.move_cursor(self._view, position.x(), position.y())
            return True
        self._actions.hover(self._view, position.x(), position.y())
        return False

    def _on_release(self, event: QMouseEvent) -> bool:
        if event.button() == Qt.MouseButton.RightButton and self._window_start is not None:
            self._window_start = None
            return True
        if event.button() != Qt.MouseButton.LeftButton:
            return False
        if self._is_moving_cursor:
            self._is_moving_cursor = False
            return True
        press, self._press = self._press, None
        if press is not None:
            offset = get_position(event) - press
            if abs(offset.x()) + abs(offset.y()) <= CLICK_TOLERANCE_PX:
                self._actions.move_cursor(self._view, press.x(), press.y())
        return False


def get_position(event: QMouseEvent) -> QPointF:
    """Return the position of a mouse event; its method differs between Qt 5 and Qt 6."""
    return QPointF(event.position() if hasattr(event, "position") else event.localPos())
