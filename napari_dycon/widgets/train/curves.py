"""Live curves of loss and validation Dice over training steps."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from typing import Any

import pyqtgraph as pg
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_dycon.project.runs.events import Event, StartedEvent, StepEvent, ValidationEvent

MAX_POINTS = 4000
CURVES = (("loss", "#e69f00", "Loss"), ("dice", "#56b4e9", "Validation Dice"))


class LearningCurves(QWidget):
    """Two plots that share the axis of steps."""

    def __init__(self) -> None:
        super().__init__()
        self.points: dict[str, tuple[list[float], list[float]]] = {}
        self._plot_items: dict[str, Any] = {}
        self._changed_curves: set[str] = set()
        self._run_id = ""
        self._plots: list[Any] = []
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for name, color, title in CURVES:
            plot = pg.PlotWidget()
            plot.setMinimumHeight(95)
            plot.setMenuEnabled(False)
            plot.hideButtons()
            plot.showGrid(x=True, y=True, alpha=0.2)
            plot.setLabel("left", title)
            if name == "loss":
                plot.setToolTip("Supervised loss on labeled patches")
            plot.getAxis("left").setWidth(48)
            pen = pg.mkPen(color, width=2)
            symbol = {"symbol": "o", "symbolSize": 5, "symbolBrush": color, "symbolPen": None}
            self._plot_items[name] = plot.plot(
                [], [], pen=pen, **(symbol if name == "dice" else {})
            )
            self._plots.append(plot)
            layout.addWidget(plot)
        self._plots[1].setXLink(self._plots[0])
        self._plots[1].setLabel("bottom", "Step")
        self._plots[1].setYRange(0, 1, padding=0.02)
        self._plots[1].hide()
        self.clear()

    def clear(self) -> None:
        """Remove all points."""
        self.points = {name: ([], []) for name, _, _ in CURVES}
        for item in self._plot_items.values():
            item.setData([], [])
        self._plots[1].hide()

    def add_event(self, event: Event) -> None:
        """Add the values of an engine event."""
        self._record_event(event)
        self._draw()

    def add_events(self, events: Iterable[Event]) -> None:
        """Add many events and draw once."""
        for event in events:
            self._record_event(event)
        self._draw()

    def _record_event(self, event: Event) -> None:
        if isinstance(event, StartedEvent):
            self._start_run(event.run, event.resumed_from_step or 0)
        elif isinstance(event, StepEvent):
            # Of the labeled patches: the total loss jumps when unlabeled ones are added.
            if (loss := event.loss_terms.get("supervised")) is not None:
                self._append("loss", event.step, loss)
        elif isinstance(event, ValidationEvent) and event.mean is not None:
            self._plots[1].show()
            self._append("dice", event.step, event.mean)

    def use_colors(self, background: str, foreground: str) -> None:
        """Apply the colors of the theme."""
        for plot in self._plots:
            plot.setBackground(background)
            for side in ("left", "bottom"):
                axis = plot.getAxis(side)
                axis.setPen(foreground)
                axis.setTextPen(foreground)

    def _start_run(self, run: str, step: int) -> None:
        """Start a new curve, or continue after the step of the last checkpoint."""
        if run != self._run_id or step < 1:
            self.clear()
        else:  # steps after the checkpoint are repeated
            for name, (steps, values) in self.points.items():
                n_kept = bisect.bisect_right(steps, step)
                self.points[name] = (steps[:n_kept], values[:n_kept])
        self._run_id = run

    def _append(self, name: str, step: float, value: float) -> None:
        steps, values = self.points[name]
        steps.append(float(step))
        values.append(float(value))
        if len(steps) > MAX_POINTS:  # thin out the older half
            half = MAX_POINTS // 2
            steps[:half] = steps[:half:2]
            values[:half] = values[:half:2]
        self._changed_curves.add(name)

    def _draw(self) -> None:
        for name in self._changed_curves:
            self._plot_items[name].setData(*self.points[name])
        self._changed_curves.clear()
