"""Live curves of loss and validation Dice over training steps."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from typing import Any

import pyqtgraph as pg
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_dycon.project.runs.events import Event, StartedEvent, StepEvent, ValidationEvent
from napari_dycon.widgets.train.static_plot import StaticPlot
from napari_dycon.widgets.window.contrast import adapt_to_background
from napari_dycon.widgets.window.helpers import make_plain_label

MAX_POINTS = 4000
# Name, color on a dark background, title and upper end of the axis of each curve.
CURVES = (
    ("dice", "#56b4e9", "Validation Dice by step (1 is perfect)", 1.0),
    ("loss", "#e69f00", "Training loss by step (lower is better)", None),
)
TOO_FEW_LABELS_TEXT = (
    "No validation Dice. Once more cases are labeled, use one of them for validation only."
)
NO_VALIDATION_TEXT = (
    "No validation Dice: right-click a labeled case in the list and choose Use for validation "
    "only. It is then not trained on."
)
DICE_TIP = (
    "Dice of the networks alone. Complete predictions may also use aligned labeled scans, so that "
    "their Dice in the list of cases differs"
)
NO_TRAINING_TEXT = "No training yet."
NEXT_TRAINING_TEXT = "No validation Dice yet: the next training measures it."


def make_pen(color: str) -> Any:
    """Return the pen of a curve."""
    return pg.mkPen(color, width=2)


class LearningCurves(QWidget):
    """Two plots over steps."""

    def __init__(self) -> None:
        super().__init__()
        self.points: dict[str, tuple[list[float], list[float]]] = {}
        self.plots: dict[str, StaticPlot] = {}
        self.titles: list[QLabel] = []
        self._plot_items: dict[str, Any] = {}
        self._changed_curves: set[str] = set()
        self._run_id = ""
        self._is_training = self._has_runs = False
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        self.dice_note = make_plain_label()  # instead of an empty chart
        self.dice_note.hide()
        layout.addWidget(self.dice_note)
        self.loss_note = make_plain_label(NO_TRAINING_TEXT)
        layout.addWidget(self.loss_note)
        self.loss_note.hide()
        for name, color, title, y_max in CURVES:
            plot = StaticPlot(y_max)
            symbol = {"symbol": "o", "symbolSize": 5, "symbolBrush": color, "symbolPen": None}
            self._plot_items[name] = plot.plot(
                [], [], pen=make_pen(color), **(symbol if name == "dice" else {})
            )
            plot.setAccessibleName(title)
            self.plots[name] = plot
            label = make_plain_label(title)
            self.titles.append(label)
            layout.addWidget(label)
            layout.addWidget(plot)
            if name == "dice":
                for widget in (label, plot):
                    widget.setToolTip(DICE_TIP)
        self.clear()

    def clear(self) -> None:
        """Remove all points."""
        self.points = {name: ([], []) for name, *_ in CURVES}
        self._changed_curves.update(self.points)
        self._draw()

    def explain_dice(self, reason: str) -> None:
        """Show why there is no Dice instead of an empty chart; without a reason, the chart."""
        if self.points["dice"][0]:
            reason = ""
        self.dice_note.setText(reason)
        self.dice_note.setVisible(bool(reason))
        dice_title = self.titles[[name for name, *_ in CURVES].index("dice")]
        for widget in (dice_title, self.plots["dice"]):
            widget.setVisible(not reason)

    def set_state(self, *, is_training: bool, has_runs: bool) -> None:
        """Reserve the place for the loss of a training, or say that there was none yet."""
        self._is_training, self._has_runs = is_training, has_runs
        self._show_loss()

    def _show_loss(self) -> None:
        """Show the chart of the loss if there is one, or if it is about to begin."""
        is_shown = self._is_training or bool(self.points["loss"][0])
        self.loss_note.setVisible(not is_shown and not self._has_runs)
        loss_title = self.titles[[name for name, *_ in CURVES].index("loss")]
        for widget in (loss_title, self.plots["loss"]):
            if widget.isHidden() == is_shown:
                widget.setVisible(is_shown)

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
            self._append("dice", event.step, event.mean)

    def use_colors(self, background: str, foreground: str) -> None:
        """Apply the colors of the theme."""
        for name, color, *_ in CURVES:
            self.plots[name].use_colors(background, foreground)
            adapted = adapt_to_background(color, background)
            self._plot_items[name].setPen(make_pen(adapted))
            self._plot_items[name].setSymbolBrush(adapted)

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
        for name in list(self._changed_curves):
            self._plot_items[name].setData(*self.points[name])
            self.plots[name].fit(*self.points[name])
            self._changed_curves.discard(name)
        self._show_loss()
