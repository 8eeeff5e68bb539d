"""A handle between the main view and the views beside it.

Qt's own splitter would take over napari's canvas, which recreates its OpenGL context.
"""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QHBoxLayout, QWidget

WIDTH_PX = 5
MIN_FRACTION, MAX_FRACTION = 0.15, 0.7
STRETCH_UNITS = 1000


class ResizeHandle(QWidget):
    """Divides the width of a horizontal layout between its first widget and a column."""

    def __init__(self, layout: QHBoxLayout, column: QWidget, fraction: float) -> None:
        super().__init__()
        self._layout = layout
        self._column = column
        self.fraction = fraction  # of the width, for the column
        self.setFixedWidth(WIDTH_PX)
        self.setCursor(Qt.CursorShape.SplitHCursor)
        self.setToolTip("Drag to resize the views")

    def apply(self) -> None:
        """Divide the width by the current fraction."""
        side = round(STRETCH_UNITS * self.fraction)
        self._layout.setStretch(0, STRETCH_UNITS - side)
        self._layout.setStretch(self._layout.indexOf(self._column), side)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802 (Qt's name)
        """Change the fraction while the handle is dragged."""
        parent = self.parentWidget()
        if event.buttons() & Qt.MouseButton.LeftButton and parent is not None:
            x = parent.mapFromGlobal(self.mapToGlobal(event.pos())).x()
            fraction = 1.0 - x / max(parent.width(), 1)
            self.fraction = min(max(fraction, MIN_FRACTION), MAX_FRACTION)
            self.apply()
