"""The DyCON panel: Data, Annotate, Train, Review, in the order a person works."""

from __future__ import annotations

import contextlib
from typing import Any

from napari.utils.notifications import show_error, show_warning
from napari.utils.theme import get_theme
from napari.viewer import Viewer
from qtpy.QtCore import QEvent, QSize, Qt, QTimer
from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import (
    QHBoxLayout,
    QScrollArea,
    QSplitter,
    QTabWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_dycon.core.text import escape_control_characters, escape_rich_text
from napari_dycon.errors import DyconError
from napari_dycon.session import Session
from napari_dycon.widgets.annotate.section import AnnotateSection
from napari_dycon.widgets.data.section import DataSection
from napari_dycon.widgets.layers.case_layers import CaseLayers
from napari_dycon.widgets.review.section import ReviewSection
from napari_dycon.widgets.review.slice_strip import SliceStrip
from napari_dycon.widgets.train.section import TrainSection
from napari_dycon.widgets.window.close_handler import CloseWatch
from napari_dycon.widgets.window.error_handler import Mishaps
from napari_dycon.widgets.window.helpers import plain_label
from napari_dycon.widgets.window.orthogonal import orthogonal_button
from napari_dycon.widgets.window.shortcuts import bind, keys_of, show_card, unbind
from napari_dycon.widgets.window.task_runner import NapariTaskRunner

# What is only good to know stands in the panel and does not cover the scan.
NOTIFY = {"warning": show_warning, "error": show_error}


class DyconPanel(QWidget):
    """Dock widget of the plugin; ``session`` is the whole application behind it."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.background = NapariTaskRunner()
        self.session = Session(self.background)
        self.layers = CaseLayers(self.session, napari_viewer, self, lambda: self.window_shown)
        self.data = DataSection(self.session)
        self.annotate = AnnotateSection(self.session, self.layers)
        self.train = TrainSection(self.session)
        self.review = ReviewSection(self.session, self.layers)
        self.strip = SliceStrip(self.session, self.layers)
        self._strip_dock: QWidget | None = None
        self._released = False
        self._mishaps = Mishaps(self.session)
        self._watch: CloseWatch | None = None  # of the main window
        self.message = plain_label()

        self.tabs = QTabWidget()
        for section, name in (
            (self.annotate, "Annotate"),
            (self.train, "Train"),
            (self.review, "Review"),
        ):
            scroll = QScrollArea()
            scroll.setWidgetResizable(True)
            scroll.setFrameShape(QScrollArea.Shape.NoFrame)
            scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
            scroll.setWidget(section)
            self.tabs.addTab(scroll, name)
        split = QSplitter(Qt.Orientation.Vertical)
        split.addWidget(self.data)
        split.addWidget(self.tabs)
        split.setChildrenCollapsible(False)
        split.setSizes([270, 470])
        help_button = QToolButton()
        help_button.setText("?")
        help_button.setToolTip("All keys on a card (F1)")
        help_button.clicked.connect(lambda: show_card(self))
        corner = QWidget()
        in_corner = QHBoxLayout(corner)
        in_corner.setContentsMargins(0, 0, 0, 0)
        in_corner.addWidget(orthogonal_button(napari_viewer))
        in_corner.addWidget(help_button)
        self.tabs.setCornerWidget(corner)
        layout = QVBoxLayout(self)
        layout.addWidget(split, 1)
        layout.addWidget(self.message)
        self.setMinimumWidth(345)

        self.session.message.connect(self._notify)
        self.keys = keys_of(self)
        bind(self.viewer, self.keys, self)
        # Layers of rectangles have keys A and D of their own; people expect those of the card.
        self.layers.box.layer_made.connect(lambda layer: bind(layer, self.keys, self))
        self.viewer.events.theme.connect(self._use_theme)
        self._use_theme()
        self.destroyed.connect(self.background.close)

    def sizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        """Narrow enough to leave the canvas most of a small screen."""
        return QSize(370, 720)

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 (Qt's name)
        """Watch the main window, also while the panel floats in a window of its own."""
        super().showEvent(event)
        top: QWidget = self
        while (parent := top.parentWidget()) is not None:
            top = parent
        if self._released or top is self:
            return
        if self._watch is None or self._watch.main is not top:
            if self._watch is not None:
                self._watch.release()
            self._watch = CloseWatch(top, self.session, self.release)
            QTimer.singleShot(0, self._mishaps.watch)  # once the event loop is at work
            if self._strip_dock is None:
                self._strip_dock = self.viewer.window.add_dock_widget(
                    self.strip, name="Slices of the case", area="bottom"
                )

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802 (Qt's name)
        """Save what was drawn when the panel is tabbed away."""
        super().hideEvent(event)
        self.session.save_label()

    def event(self, event: QEvent) -> bool:
        """Notice that the panel itself is closed: napari takes it out of its dock then."""
        if (
            event.type() == QEvent.Type.ParentChange
            and self._watch is not None
            and self.parentWidget() is None
        ):
            self.release()
        return bool(super().event(event))

    @property
    def window_shown(self) -> bool:
        """Whether the window is there to be drawn, also when the panel itself is not."""
        return self._watch is not None and self._watch.shown

    def release(self) -> None:
        """Save and let go of everything; safe to call twice."""
        if self._released:
            return
        self._released = True
        try:
            self.session.flush()
        except DyconError:  # told already
            with contextlib.suppress(DyconError):  # the rest must be let go of all the same
                self.session.save_recovery_copy()
        self.strip.release()
        self.annotate.tools.box.release()
        closing = self._watch is not None and self._watch.closing
        if self._strip_dock is not None and not closing:
            with contextlib.suppress(LookupError, RuntimeError):  # gone by a person's hand
                self.viewer.window.remove_dock_widget(self.strip)
        self._mishaps.release()
        unbind(self.viewer, self.keys)
        self.layers.close()
        if self._watch is not None:
            self._watch.release()
            self._watch = None
        self.session.close_project()
        self.background.close()
        self.viewer.events.theme.disconnect(self._use_theme)

    def _notify(self, level: str, text: str) -> None:
        if level in NOTIFY:
            NOTIFY[level](escape_rich_text(text))
        self.message.setText(escape_control_characters(text))

    def _use_theme(self, _: Any = None) -> None:
        theme = get_theme(self.viewer.theme)
        for plots in (self.train.curves, self.train.rounds, self.strip):
            plots.use_colors(theme.background.as_hex(), theme.text.as_hex())
