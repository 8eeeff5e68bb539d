"""Color bar of the uncertainty map, from 0 to 1, with the value from which it is shown."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QRectF, QSize, Qt
from qtpy.QtGui import QColor, QLinearGradient, QPainter, QPaintEvent, QPalette
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_dycon.core.colormaps import (
    DISAGREEMENT_COLORMAP,
    MAX_TINTED_FRACTION,
    UNCERTAINTY_COLORMAP,
    apply_colormap,
)
from napari_dycon.session import Session
from napari_dycon.widgets.layers.case_layers import CaseLayers
from napari_dycon.widgets.window.labels import ElidedLabel

BAR_HEIGHT_PX = 10
MARGIN_PX = 12  # so that the outer numbers fit
N_STOPS = 33
MIN_MIDDLE_TICK, MAX_MIDDLE_TICK = 0.12, 0.88  # numbers nearer to an end would overlap its number
RAISED_TEXT = "Shown from {low:.2f}: the highest {percent:.0f} %"
RAISED_TIP = (
    "Much of this scan is uncertain. Only values from {low:.2f} are shown and searched for "
    "uncertain regions, not all above the threshold"
)
SHOWN_TEXT = "Shown from {low:.2f}"
GRAY = QColor(128, 128, 128)  # as of tissue under the map
STOPS = {"uncertainty": UNCERTAINTY_COLORMAP, "disagreement": DISAGREEMENT_COLORMAP}


class ColorBar(QWidget):
    """Colors of the map that is shown; gray below the value from which it is shown.

    This value is the threshold, or higher where much of the scan is uncertain.

    Attributes
    ----------
    note_label : from which value the map is shown; it is not part of the bar
    """

    def __init__(self, session: Session, layers: CaseLayers) -> None:
        super().__init__()
        self._layers, self._session = layers, session
        self.note_label = ElidedLabel()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName("Color bar of the uncertainty, from 0 to 1")
        session.case_shown.connect(self.refresh)
        session.prediction_changed.connect(self.refresh)
        layers.visibility_toggled.connect(self.refresh)
        self.refresh()

    @property
    def role(self) -> str:
        """Map whose colors are shown."""
        visible = self._layers.visible
        return (
            "disagreement"
            if visible["disagreement"] and not visible["uncertainty"]
            else "uncertainty"
        )

    @property
    def low(self) -> float:
        """Value from which the map is shown."""
        return self._layers.overlays.color_range(self.role)[0]

    def sizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        """Return the height of the bar and one line of numbers."""
        return QSize(200, BAR_HEIGHT_PX + self.fontMetrics().height() + 4)

    def paintEvent(self, _: QPaintEvent) -> None:  # noqa: N802 (Qt's name)
        """Draw the bar, and numbers below it."""
        painter = QPainter(self)
        bar = QRectF(MARGIN_PX, 1, self.width() - 2 * MARGIN_PX, BAR_HEIGHT_PX)
        painter.fillRect(bar, GRAY)
        gradient = QLinearGradient(bar.topLeft(), bar.topRight())
        positions = np.linspace(self.low, 1.0, N_STOPS)
        values = np.linspace(0.0, 1.0, N_STOPS)
        gradient.setColorAt(0.0, QColor(0, 0, 0, 0))
        if self.low > 0:
            gradient.setColorAt(max(self.low - 1e-3, 0.0), QColor(0, 0, 0, 0))
        opacity = self._layers.opacity[self.role]
        for position, color in zip(
            positions, apply_colormap(values, STOPS[self.role]), strict=True
        ):
            red, green, blue, alpha = (int(c) for c in color)
            gradient.setColorAt(float(position), QColor(red, green, blue, round(alpha * opacity)))
        painter.fillRect(bar, gradient)
        painter.setPen(self.palette().color(QPalette.ColorRole.WindowText))
        for value in self._list_ticks():
            x = bar.left() + value * bar.width()
            text = f"{value:.2f}" if 0 < value < 1 else f"{value:.0f}"
            area = QRectF(x - 20, bar.bottom() + 1, 40, self.fontMetrics().height())
            painter.drawText(area, Qt.AlignmentFlag.AlignHCenter, text)
        painter.end()

    def _list_ticks(self) -> list[float]:
        """Return values with a number: the ends, and the lowest one shown.

        Where there is no room for both, the lowest one takes the place of the upper end.
        """
        if self.low >= MAX_MIDDLE_TICK:
            return [0.0, self.low]
        return [0.0, self.low, 1.0] if self.low > MIN_MIDDLE_TICK else [0.0, 1.0]

    def refresh(self, *_: object) -> None:
        """Draw the bar again, and tell of a value above the threshold."""
        low, threshold = self.low, self._layers.overlays.threshold
        is_raised = low > threshold + 0.005
        percent = 100 * MAX_TINTED_FRACTION
        text = RAISED_TEXT if is_raised else SHOWN_TEXT
        case = self._session.case
        has_map = case is not None and getattr(case, self.role) is not None
        self.note_label.set_text(text.format(low=low, percent=percent) if has_map else "")
        tip = RAISED_TIP.format(low=low) if is_raised else ""
        self.setToolTip(tip)
        self.note_label.setToolTip(tip)
        self.update()
