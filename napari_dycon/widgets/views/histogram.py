"""A small histogram of the intensities, with the displayed range as a movable region."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_dycon.application.intensity_windows import AUTOMATIC
from napari_dycon.session import Session
from napari_dycon.widgets.layers.intensity_window import IntensityWindow

SIZE_PX = (320, 150)


class HistogramPopup(QWidget):
    """Opens below a button and closes at a click elsewhere."""

    def __init__(self, session: Session, window: IntensityWindow, parent: QWidget) -> None:
        super().__init__(parent, Qt.WindowType.Popup)
        self._session = session
        self._window = window
        self._is_updating = False
        self.plot = pg.PlotWidget()
        self.plot.setMenuEnabled(False)
        self.plot.hideButtons()
        self.plot.setMouseEnabled(False, False)
        self.plot.hideAxis("left")
        self.plot.getAxis("bottom").enableAutoSIPrefix(False)
        self.bars = self.plot.plot([], [], stepMode="center", fillLevel=0, brush=(150, 150, 150))
        self.region = pg.LinearRegionItem(brush=(255, 214, 80, 50))
        self.region.setZValue(10)
        self.region.sigRegionChanged.connect(self._apply_region)
        self.plot.addItem(self.region)
        automatic = QPushButton("Automatic")
        automatic.setToolTip("All intensities but the darkest and brightest half percent")
        automatic.clicked.connect(lambda: window.choose_preset(AUTOMATIC))
        layout = QVBoxLayout(self)
        layout.addWidget(self.plot)
        layout.addWidget(automatic)
        self.resize(*SIZE_PX)
        window.changed.connect(self._show_region)

    def show_below(self, button: QWidget) -> None:
        """Open below a button with the histogram of the visible channel."""
        case = self._session.case
        if case is None:
            return
        statistics = case.statistics[self._window.channel]
        edges = np.linspace(*statistics.full, len(statistics.counts) + 1)
        # Logarithmic: air would hide everything else.
        self.bars.setData(edges, np.log1p(statistics.counts))
        self.plot.setXRange(*statistics.full, padding=0.02)
        self._show_region()
        self.move(button.mapToGlobal(QPoint(0, button.height())))
        self.show()

    def _show_region(self) -> None:
        if (limits := self._window.range) is not None:
            self._is_updating = True
            self.region.setRegion(limits)
            self._is_updating = False

    def _apply_region(self) -> None:
        if not self._is_updating:
            low, high = self.region.getRegion()
            self._window.set_range(float(low), float(high))
