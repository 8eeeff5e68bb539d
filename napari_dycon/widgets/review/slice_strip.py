"""Strip under the canvas: which slices are annotated, where the network is unsure; click to go."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import QSize
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_dycon.application.slice_profile import SliceProfile, compute_slice_profile
from napari_dycon.session import Session
from napari_dycon.widgets.layers.case_layers import CaseLayers

HEIGHT = 68
BAR = 0.16  # of the strip's height, for the annotated slices
UNSURE = "#f0a030"
DONE, BEGUN, OPEN = (42, 143, 208), (127, 184, 220), (128, 128, 128, 85)
TIP = (
    "Curve: how unsure the network is in each slice. Bar: which slices are annotated (blue: "
    "finished, light blue: begun, gray: not yet). Click to go there."
)
AXES = ("feet to head", "front to back", "right to left")


class SliceStrip(QWidget):
    """Uncertainty of every slice across the axis in view, above a bar of what is annotated."""

    def __init__(self, session: Session, layers: CaseLayers) -> None:
        super().__init__()
        self.session = session
        self.layers = layers
        self.profile: SliceProfile | None = None
        self._asked = 0
        self._brushes = {color: pg.mkBrush(QColor(*color)) for color in (DONE, BEGUN, OPEN)}
        self.plot = pg.PlotWidget()
        self.plot.setMenuEnabled(False)
        self.plot.hideButtons()
        self.plot.setMouseEnabled(False, False)
        self.plot.setFixedHeight(HEIGHT)
        self.plot.hideAxis("left")
        self.plot.setYRange(0, 1, padding=0)
        self.plot.setToolTip(TIP)
        self.curve = self.plot.plot(
            [], [], pen=pg.mkPen(UNSURE, width=1.5), fillLevel=BAR, brush=QColor(240, 160, 48, 90)
        )
        self.bars: Any = pg.BarGraphItem(x=[], height=[], width=1.0, y0=0, pen=None)
        self.plot.addItem(self.bars)
        self.here = pg.InfiniteLine(movable=True, pen=pg.mkPen("#e04040", width=2))
        self.here.sigDragged.connect(lambda line: self._go(line.value()))
        self.plot.addItem(self.here)
        self.plot.scene().sigMouseClicked.connect(self._clicked)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.plot)
        session.case_shown.connect(self.refresh)
        session.prediction_changed.connect(self.refresh)
        session.label_saved.connect(self.refresh)
        session.label_edited.connect(self.refresh)
        layers.viewer.dims.events.order.connect(self.refresh)
        layers.viewer.dims.events.point.connect(self._move)
        self.refresh()

    def sizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        """As low as it can be read."""
        return QSize(400, HEIGHT)

    def release(self) -> None:
        """Let go of the viewer."""
        self.layers.viewer.dims.events.order.disconnect(self.refresh)
        self.layers.viewer.dims.events.point.disconnect(self._move)

    def use_colors(self, background: str, foreground: str) -> None:
        """Follow the theme of the window."""
        self.plot.setBackground(background)
        axis = self.plot.getAxis("bottom")
        axis.setPen(foreground)
        axis.setTextPen(foreground)

    def refresh(self, *_: object) -> None:
        """Work the profile out anew, in the background."""
        view = self.session.case
        self._asked += 1
        if view is None:
            self._draw(None)
            return
        axis, asked = self.layers.axis, self._asked
        label, uncertainty = view.label.copy(), view.uncertainty

        def done(profile: SliceProfile) -> None:
            if asked == self._asked:
                self._draw(profile)

        self.session.task_runner.submit(
            lambda: compute_slice_profile(label, uncertainty, axis), done, self.session.report_error
        )

    def _draw(self, profile: SliceProfile | None) -> None:
        self.profile = profile
        if profile is None:
            self.curve.setData([], [])
            self.bars.setOpts(x=[], height=[], brushes=[])
            self.here.hide()
            return
        count = len(profile.annotated_fractions)
        numbers = np.arange(count)
        if profile.uncertainty is None:
            self.curve.setData([], [])
        else:
            self.curve.setData(numbers, BAR + (1 - BAR) * profile.uncertainty)
        brushes = [
            self._brushes[DONE if share == 1.0 else BEGUN if share > 0 else OPEN]
            for share in profile.annotated_fractions.tolist()
        ]
        self.bars.setOpts(x=numbers, height=np.full(count, BAR), brushes=brushes)
        self.plot.setXRange(-0.5, count - 0.5, padding=0)
        self.plot.setToolTip(f"{TIP}\nSlices run {AXES[profile.axis]}.")
        self.here.show()
        self._move()

    def _move(self, *_: object) -> None:
        if self.profile is not None and self.profile.axis == self.layers.axis:
            self.here.setValue(self.layers.slice_index)

    def _clicked(self, event: Any) -> None:
        place = self.plot.getPlotItem().vb.mapSceneToView(event.scenePos())
        self._go(place.x())

    def _go(self, number: float) -> None:
        if self.profile is not None:
            self.layers.go_to_slice(round(number), self.profile.axis)
