"""A chart that only shows: it always fits its data, and the wheel scrolls the page behind it."""

from __future__ import annotations

from collections.abc import Sequence

import pyqtgraph as pg
from qtpy.QtGui import QWheelEvent

from napari_dycon.widgets.window.wheel_guard import scroll_page

HEIGHT_PX = 100
AXIS_WIDTH_PX = 40
X_PADDING, Y_PADDING = 0.04, 0.16  # pyqtgraph hides numbers without room at the ends
HEADROOM = 1.05


class StaticPlot(pg.PlotWidget):
    """Values over steps.

    The vertical axis starts at 0 and ends at ``y_max``, or above the largest value without it. No
    unit prefixes are used: a Dice of 0.42 must not appear as 420.
    """

    def __init__(self, y_max: float | None = None) -> None:
        super().__init__()
        self._y_max = y_max
        self.setFixedHeight(HEIGHT_PX)
        self.setMenuEnabled(False)
        self.setMouseEnabled(False, False)
        self.hideButtons()
        self.showGrid(x=True, y=True, alpha=0.2)
        for side in ("left", "bottom"):
            self.getAxis(side).enableAutoSIPrefix(False)
        left = self.getAxis("left")
        left.setWidth(AXIS_WIDTH_PX)
        if y_max is not None:
            left.setTicks([[(tick, f"{tick:g}") for tick in (0.0, y_max / 2, y_max)]])
        self.fit([], [])

    def fit(self, steps: Sequence[float], values: Sequence[float]) -> None:
        """Show the range of all steps and values."""
        self.setXRange(0, max(steps, default=0.0) or 1.0, padding=X_PADDING)
        highest = self._y_max or HEADROOM * max(values, default=0.0) or 1.0
        self.setYRange(0, highest, padding=Y_PADDING)

    def use_colors(self, background: str, foreground: str) -> None:
        """Apply the colors of the theme."""
        self.setBackground(background)
        for side in ("left", "bottom"):
            axis = self.getAxis(side)
            axis.setPen(foreground)
            axis.setTextPen(foreground)

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802 (Qt's name)
        """Scroll the page behind the chart."""
        scroll_page(self, event)
