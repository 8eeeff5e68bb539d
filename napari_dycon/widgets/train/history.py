"""Training history: table and curves of recent runs."""

from __future__ import annotations

from typing import Any

import pyqtgraph as pg
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import QHeaderView, QTreeWidget, QTreeWidgetItem, QVBoxLayout, QWidget

from napari_dycon.application.training.history import (
    RunSummary,
    compare_rounds,
    read_training_history,
)
from napari_dycon.core.text import escape_rich_text
from napari_dycon.session import Session
from napari_dycon.widgets.train.curves import NO_TRAINING_TEXT
from napari_dycon.widgets.train.static_plot import StaticPlot
from napari_dycon.widgets.window.contrast import adapt_to_background
from napari_dycon.widgets.window.helpers import make_plain_label

# On a dark background.
COLORS = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#0072b2", "#d55e00", "#999999")
COLUMNS = ("Run", "Labels", "Steps", "Dice")
MAX_RUNS_SHOWN = len(COLORS)  # newest runs


class TrainingHistory(QWidget):
    """Table and curves of the newest runs; the selected row's curve is highlighted."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.runs: list[RunSummary] = []
        self._request = 0
        self._colors: tuple[str, ...] = COLORS
        self.table = QTreeWidget()
        self.table.setHeaderLabels(list(COLUMNS))
        self.table.setRootIsDecorated(False)
        self.table.setMaximumHeight(110)
        self.table.setAccessibleName("Training history")
        self.table.setToolTip(
            "Labels: number of training cases annotated completely or in part. Dice: final "
            "validation Dice of the networks. To use a case for validation, right-click it in "
            "the list"
        )
        header = self.table.header()
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column in range(1, len(COLUMNS)):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        header.setStretchLastSection(False)
        self.table.currentItemChanged.connect(self._draw)
        self.summary_label = make_plain_label()
        self.plot_title = make_plain_label()
        self.dice_plot, self.loss_plot = StaticPlot(1.0), StaticPlot()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.table)
        layout.addWidget(self.summary_label)
        layout.addWidget(self.plot_title)
        layout.addWidget(self.dice_plot)
        layout.addWidget(self.loss_plot)
        session.project_changed.connect(self.refresh)
        session.runs_changed.connect(self.refresh)
        self.refresh()

    def use_colors(self, background: str, foreground: str) -> None:
        """Apply the colors of the theme."""
        for plot in (self.dice_plot, self.loss_plot):
            plot.use_colors(background, foreground)
        self._colors = tuple(adapt_to_background(color, background) for color in COLORS)
        for number in range(len(self.runs)):
            self._show_color(number)
        self._draw()

    def refresh(self, *_: object) -> None:
        """Read the runs again, in the background."""
        project = self.session.project
        self._request += 1
        request = self._request  # an earlier one may end later
        if project is None:
            self._fill([])
            return

        def on_done(history: list[RunSummary]) -> None:
            if request == self._request:
                self._fill(history)

        self.session.task_runner.submit(
            lambda: read_training_history(project), on_done, lambda _: None
        )

    def _fill(self, runs: list[RunSummary]) -> None:
        self.runs = runs[-MAX_RUNS_SHOWN:]
        self.table.clear()
        for number, run in enumerate(self.runs):
            dice = "–" if run.dice is None else f"{run.dice:.2f}"
            item = QTreeWidgetItem([run.run, str(run.n_labeled), str(run.steps), dice])
            origin = f", initialized from {run.init_from}" if run.init_from else ""
            tip = f"{run.method}, {run.outcome or 'unfinished'}{origin}"
            item.setToolTip(0, escape_rich_text(tip))
            for column in range(1, len(COLUMNS)):
                item.setTextAlignment(column, Qt.AlignmentFlag.AlignRight)
            self.table.addTopLevelItem(item)
            self._show_color(number)
        self.summary_label.setText(compare_rounds(runs) if runs else NO_TRAINING_TEXT)
        for widget in (self.table, self.plot_title):
            widget.setVisible(bool(runs))
        self._draw()

    def _show_color(self, number: int) -> None:
        """Show the color of a run's curve in its row."""
        pixmap = QPixmap(10, 10)
        pixmap.fill(QColor(self._colors[number]))
        self.table.topLevelItem(number).setIcon(0, QIcon(pixmap))

    def _draw(self, *_: object) -> None:
        """Plot validation Dice of all runs if available, otherwise their losses."""
        has_validation = any(one.validation for one in self.runs)
        plot = self.dice_plot if has_validation else self.loss_plot
        for one in (self.dice_plot, self.loss_plot):
            one.clear()
            one.setVisible(one is plot and bool(self.runs))
        self.plot_title.setText(
            "Dice on the validation cases by step" if has_validation else "Training loss by step"
        )
        selected_row = self.table.indexOfTopLevelItem(self.table.currentItem())
        all_points: list[tuple[float, float]] = []
        for number, run in enumerate(self.runs):
            curve = run.validation if has_validation else run.loss
            all_points += curve
            pen = pg.mkPen(self._colors[number], width=3.5 if number == selected_row else 1.5)
            markers: dict[str, Any] = {}
            if has_validation:
                markers = {"symbol": "o", "symbolSize": 5, "symbolBrush": self._colors[number]}
            plot.plot([x for x, _ in curve], [y for _, y in curve], pen=pen, **markers)
        plot.fit([x for x, _ in all_points], [y for _, y in all_points])
