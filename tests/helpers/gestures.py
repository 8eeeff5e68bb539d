"""A mouse over any of the linked views."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent, QWheelEvent
from qtpy.QtWidgets import QApplication

from napari_dycon.widgets.views.linked_views import LinkedViews
from napari_dycon.widgets.views.mouse import NOTCH
from napari_dycon.widgets.views.view import View

NONE = Qt.KeyboardModifier.NoModifier
LEFT, RIGHT = Qt.MouseButton.LeftButton, Qt.MouseButton.RightButton


class Gestures:
    """Sends events of mouse and wheel to the canvases of the views."""

    def __init__(self, viewer: Any, panel: Any, qtbot: Any) -> None:
        self.viewer, self.panel, self.qtbot = viewer, panel, qtbot
        self.session = panel.session
        self.views: LinkedViews = panel.canvas_area.views

    def locate(self, view: View, voxel: tuple[float, float, float]) -> QPoint:
        """Pixel of a voxel's center on the canvas of a view."""
        vertical, horizontal = view.plane.displayed_axes
        spacing = self.session.case.image.spacing_mm
        x, y = view.geometry.to_pixel(
            voxel[vertical] * spacing[vertical], voxel[horizontal] * spacing[horizontal]
        )
        return QPoint(round(x), round(y))

    def send(
        self, view: View, kind: Any, point: QPoint, button: Any, modifiers: Any = NONE
    ) -> None:
        """Send one event of the mouse."""
        is_move = kind == QEvent.Type.MouseMove
        held = Qt.MouseButton.NoButton if kind == QEvent.Type.MouseButtonRelease else button
        event = QMouseEvent(
            kind,
            QPointF(point),
            QPointF(view.canvas.mapToGlobal(point)),
            Qt.MouseButton.NoButton if is_move else button,
            held,
            modifiers,
        )
        QApplication.sendEvent(view.canvas, event)
        self.qtbot.wait(30)

    def drag(
        self, view: View, start: QPoint, end: QPoint, button: Any = LEFT, modifiers: Any = NONE
    ) -> None:
        """Press, move in three steps, and release."""
        self.send(view, QEvent.Type.MouseMove, start, Qt.MouseButton.NoButton, modifiers)
        self.send(view, QEvent.Type.MouseButtonPress, start, button, modifiers)
        if start != end:
            for step in (1, 2, 3):
                point = start + (end - start) * step / 3
                self.send(view, QEvent.Type.MouseMove, point, button, modifiers)
        self.send(view, QEvent.Type.MouseButtonRelease, end, button, modifiers)
        self.qtbot.wait(120)

    def click(self, view: View, point: QPoint, button: Any = LEFT, modifiers: Any = NONE) -> None:
        """Press and release without moving."""
        self.drag(view, point, point, button, modifiers)

    def wheel(self, view: View, notches: int, point: QPoint, modifiers: Any = NONE) -> None:
        """Turn the wheel."""
        event = QWheelEvent(
            QPointF(point),
            QPointF(view.canvas.mapToGlobal(point)),
            QPoint(0, 0),
            QPoint(0, notches * NOTCH),
            Qt.MouseButton.NoButton,
            modifiers,
            Qt.ScrollPhase.NoScrollPhase,
            False,
        )
        QApplication.sendEvent(view.canvas, event)
        self.qtbot.wait(80)

    @property
    def voxel(self) -> tuple[int, ...]:
        """Voxel of the crosshair."""
        spacing = self.session.case.image.spacing_mm
        return tuple(round(p / s) for p, s in zip(self.viewer.dims.point, spacing, strict=True))
