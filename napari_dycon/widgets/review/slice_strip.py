"""Strip below the canvas: annotation and uncertainty of each slice; a click navigates."""

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

HEIGHT_PX = 34
BAR_FRACTION = 0.25  # of the strip's height, for the annotated slices
UNCERTAIN_COLOR = "#f0a030"
COMPLETE_COLOR, PARTIAL_COLOR, UNANNOTATED_COLOR = (
    (42, 143, 208),
    (127, 184, 220),
    (128, 128, 128, 85),
)
TIP = (
    "Curve: uncertainty of each slice. Bar: annotation of each slice (blue: complete, light "
    "blue: partial, gray: none). Click to go to a slice."
)
RANGE_TEXT = "The curve shows mean uncertainties from {} (bottom) to {} (top)."
AXIS_DIRECTIONS = ("feet to head", "front to back", "right to left")


class SliceStrip(QWidget):
    """Uncertainty of each slice of the main view, above a bar that shows annotated slices."""

    def __init__(self, session: Session, layers: CaseLayers) -> None:
        super().__init__()
        self.session = session
        self.layers = layers
        self.profile: SliceProfile | None = None
        self._brushes = {
            color: pg.mkBrush(QColor(*color))
            for color in (COMPLETE_COLOR, PARTIAL_COLOR, UNANNOTATED_COLOR)
        }
        self.plot = pg.PlotWidget()
        self.plot.setMenuEnabled(False)
        self.plot.hideButtons()
        self.plot.setMouseEnabled(False, False)
        self.plot.setFixedHeight(HEIGHT_PX)
        self.plot.hideAxis("left")
        self.plot.hideAxis("bottom")  # the title in the canvas tells the number of the slice
        self.plot.setYRange(0, 1, padding=0)
        self.plot.setToolTip(TIP)
        self.curve = self.plot.plot(
            [],
            [],
            pen=pg.mkPen(UNCERTAIN_COLOR, width=1.5),
            fillLevel=BAR_FRACTION,
            brush=QColor(240, 160, 48, 90),
        )
        self.bars: Any = pg.BarGraphItem(x=[], height=[], width=1.0, y0=0, pen=None)
        self.plot.addItem(self.bars)
        self.position_line = pg.InfiniteLine(movable=True, pen=pg.mkPen("#e04040", width=2))
        self.position_line.sigDragged.connect(lambda line: self._go_to(line.value()))
        self.plot.addItem(self.position_line)
        self.plot.scene().sigMouseClicked.connect(self._on_click)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.plot)
        session.case_shown.connect(self.refresh)
        session.prediction_changed.connect(self.refresh)
        session.label_saved.connect(self.refresh)
        session.label_edited.connect(self.refresh)
        layers.viewer.dims.events.order.connect(self.refresh)
        layers.viewer.dims.events.point.connect(self._move_position_line)
        self.refresh()

    def sizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        """Return the smallest legible size."""
        return QSize(400, HEIGHT_PX)

    def disconnect_events(self) -> None:
        """Disconnect from the viewer."""
        self.layers.viewer.dims.events.order.disconnect(self.refresh)
        self.layers.viewer.dims.events.point.disconnect(self._move_position_line)

    def use_colors(self, background: str, _: str) -> None:
        """Follow the theme of the window."""
        self.plot.setBackground(background)

    def refresh(self, *_: object) -> None:
        """Recompute the profile in the background."""
        case = self.session.case
        if case is None:
            self._draw(None)
            return
        axis = self.layers.main_axis
        # The label is not copied: what an edit changes meanwhile is computed again.
        label, uncertainty = case.label, case.uncertainty

        def on_done(profile: SliceProfile) -> None:
            if self.session.case is case:
                self._draw(profile)

        self.session.task_runner.submit_when_idle(
            "slice profile",
            lambda: compute_slice_profile(label, uncertainty, axis),
            on_done,
            self.session.report_error,
        )

    def _draw(self, profile: SliceProfile | None) -> None:
        self.profile = profile
        if profile is None:
            self.curve.setData([], [])
            self.bars.setOpts(x=[], height=[], brushes=[])
            self.position_line.hide()
            return
        n_slices = len(profile.annotated_fractions)
        slice_indices = np.arange(n_slices)
        curve = profile.curve
        if curve is None:
            self.curve.setData([], [])
        else:
            self.curve.setData(slice_indices, BAR_FRACTION + (1 - BAR_FRACTION) * curve)
        brushes = [
            self._brushes[
                COMPLETE_COLOR
                if share == 1.0
                else PARTIAL_COLOR
                if share > 0
                else UNANNOTATED_COLOR
            ]
            for share in profile.annotated_fractions.tolist()
        ]
        self.bars.setOpts(x=slice_indices, height=np.full(n_slices, BAR_FRACTION), brushes=brushes)
        self.plot.setXRange(-0.5, n_slices - 0.5, padding=0)
        tips = [TIP, f"Slices run {AXIS_DIRECTIONS[profile.axis]}."]
        if profile.uncertainty is not None:
            lowest, highest = profile.uncertainty.min(), profile.uncertainty.max()
            tips.append(RANGE_TEXT.format(f"{lowest:.2g}", f"{highest:.2g}"))
        self.plot.setToolTip("\n".join(tips))
        self.position_line.show()
        self._move_position_line()

    def _move_position_line(self, *_: object) -> None:
        if self.profile is not None and self.profile.axis == self.layers.main_axis:
            self.position_line.setValue(self.layers.get_slice_index(self.profile.axis))

    def _on_click(self, event: Any) -> None:
        position = self.plot.getPlotItem().vb.mapSceneToView(event.scenePos())
        self._go_to(position.x())

    def _go_to(self, position: float) -> None:
        if self.profile is not None:
            self.layers.go_to_slice(round(position), self.profile.axis)
