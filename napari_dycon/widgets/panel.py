"""The DyCON panel: cases, Annotate, Train and Review."""

from __future__ import annotations

import contextlib
from typing import Any

from napari.utils.notifications import show_error, show_warning
from napari.utils.theme import get_theme
from napari.viewer import Viewer
from qtpy.QtCore import QEvent, QSize, QTimer
from qtpy.QtGui import QHideEvent, QResizeEvent, QShowEvent
from qtpy.QtWidgets import QHBoxLayout, QToolButton, QVBoxLayout, QWidget

from napari_dycon.application.activities import Activity
from napari_dycon.core.text import escape_rich_text
from napari_dycon.errors import DyconError
from napari_dycon.session import Session
from napari_dycon.widgets.annotate.section import AnnotateSection
from napari_dycon.widgets.background.task_runner import NapariTaskRunner
from napari_dycon.widgets.data.section import DataSection
from napari_dycon.widgets.layers.case_layers import CaseLayers
from napari_dycon.widgets.review.section import ReviewSection
from napari_dycon.widgets.review.slice_strip import SliceStrip
from napari_dycon.widgets.train.section import TrainSection
from napari_dycon.widgets.views.canvas_area import CanvasArea
from napari_dycon.widgets.window.close_handler import CloseHandler
from napari_dycon.widgets.window.error_handler import ErrorHandler
from napari_dycon.widgets.window.key_dispatcher import KeyDispatcher
from napari_dycon.widgets.window.message_bar import MessageBar
from napari_dycon.widgets.window.panel_sections import PanelSections
from napari_dycon.widgets.window.preferences import PreferenceFollower
from napari_dycon.widgets.window.progress_row import ProgressRow
from napari_dycon.widgets.window.shortcuts import (
    ShortcutsDialog,
    build_shortcuts,
    make_actions,
)

# Used only while the panel is hidden: notifications of napari cover the scan.
NOTIFIERS = {"warning": show_warning, "error": show_error}
# napari's theme does not show which button the keyboard presses. The size is that without a border.
FOCUS_STYLE = "QPushButton:focus {{ border: 1px solid {color}; padding: 3px; }}"


class DyconPanel(QWidget):
    """Dock widget of the plugin; ``session`` is the whole application behind it."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.task_runner = NapariTaskRunner()
        self.session = Session(self.task_runner)
        self.layers = CaseLayers(
            self.session,
            napari_viewer,
            self,
            lambda: self.is_window_visible,
            self.task_runner.interactions,
        )
        self.data = DataSection(self.session)
        self.annotate = AnnotateSection(self.session, self.layers)
        self.train = TrainSection(self.session, self.task_runner.activities)
        self.review = ReviewSection(self.session, self.layers)
        self.strip = SliceStrip(self.session, self.layers)
        self.canvas_area = CanvasArea(
            self.session,
            napari_viewer,
            self.layers,
            self.strip,
            self.annotate.completion.slice_button,
        )
        self._is_released = False
        self.is_own_window = False  # the program's own, and not one of napari
        self._error_handler = ErrorHandler(self.session)
        self._close_handler: CloseHandler | None = None  # of the main window
        self.message_label = MessageBar(self.session)
        self.progress_row = ProgressRow(self.session, self.task_runner.activities)

        self.sections = PanelSections(
            self.session,
            self.data,
            ((self.annotate, "Annotate"), (self.train, "Train"), (self.review, "Review")),
        )
        self.tabs = self.sections.tabs
        help_button = QToolButton()
        help_button.setText("?")
        help_button.setToolTip("Keyboard shortcuts (F1)")
        help_button.setAccessibleName("Keyboard shortcuts")
        help_button.clicked.connect(self.show_shortcuts)
        corner = QWidget()
        corner_layout = QHBoxLayout(corner)
        corner_layout.setContentsMargins(0, 0, 0, 0)
        corner_layout.addWidget(help_button)
        self.tabs.setCornerWidget(corner)
        layout = QVBoxLayout(self)
        layout.addWidget(self.sections, 1)
        layout.addWidget(self.progress_row)
        layout.addWidget(self.message_label)
        self.setMinimumWidth(345)

        self.session.message.connect(self._notify)
        views = self.canvas_area.views
        self.shortcuts = build_shortcuts(
            self.session, self.annotate, self.review, views, self.show_shortcuts
        )
        self._keys = KeyDispatcher(
            make_actions(self.session, self.shortcuts), lambda: views.active_view.canvas, self
        )
        self._preferences = PreferenceFollower(
            {
                "annotate.brush_mm": self.annotate.brush.diameter.setValue,
                "review.show_above": self.review.overlay_controls.threshold.setValue,
                "train.minutes": self.train.set_minutes,
                "views.side_views": views.show_side_views,
            }
        )
        self.viewer.events.theme.connect(self._apply_theme)
        self._apply_theme()
        self.destroyed.connect(self.task_runner.close)

    def show_shortcuts(self) -> None:
        """Show the keyboard shortcuts in a dialog that does not block the window."""
        ShortcutsDialog(self, self.shortcuts).show()

    def sizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        """Return a size that leaves the canvas most of a small screen."""
        return QSize(370, 720)

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 (Qt's name)
        """Leave the space of messages and progress to the tabs where the panel is low."""
        super().resizeEvent(event)
        self.message_label.adapt_to_height(self.height())
        self.progress_row.adapt_to_height(self.height())

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 (Qt's name)
        """Watch the main window, also while the panel is floating."""
        super().showEvent(event)
        top: QWidget = self
        while (parent := top.parentWidget()) is not None:
            top = parent
        if self._is_released or top is self:
            return
        self._keys.watch(self)
        self._keys.watch(top)
        if self._close_handler is None or self._close_handler.main_window is not top:
            if self._close_handler is not None:
                self._close_handler.uninstall()
            self._close_handler = CloseHandler(
                top, self.session, self.release, self._list_tasks_to_confirm
            )
            QTimer.singleShot(0, self._error_handler.install)  # once the event loop is running
            self.canvas_area.start()

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802 (Qt's name)
        """Save annotations when the panel is hidden."""
        super().hideEvent(event)
        self.session.save_label()

    def event(self, event: QEvent) -> bool:
        """Detect that the panel itself is closed, which removes it from its dock."""
        if (
            event.type() == QEvent.Type.ParentChange
            and self._close_handler is not None
            and self.parentWidget() is None
        ):
            self.release()
        return bool(super().event(event))

    @property
    def is_window_visible(self) -> bool:
        """Whether the window is visible, even if the panel itself is not."""
        return self._close_handler is not None and self._close_handler.is_visible

    def _list_tasks_to_confirm(self) -> list[Activity] | None:
        """Return the tasks that can be canceled; ``None`` if napari asks on its own."""
        if not self.is_own_window:
            return None
        return [task for task in self.task_runner.activities.running if task.can_cancel]

    def release(self) -> None:
        """Save and release everything; safe to call twice."""
        if self._is_released:
            return
        self._is_released = True
        try:
            self.session.flush()
        except DyconError:  # already reported
            with contextlib.suppress(DyconError):  # everything else must still be released
                self.session.save_recovery_copy()
        self._preferences.close()
        self.strip.disconnect_events()
        self.annotate.tools.roi_controls.disconnect_events()
        self.canvas_area.close()
        self._error_handler.uninstall()
        self._keys.close()
        self.layers.close()
        if self._close_handler is not None:
            self._close_handler.uninstall()
            self._close_handler = None
        with contextlib.suppress(DyconError):  # of a label that could not be saved, see above
            self.session.close_project()
        self.task_runner.close()
        self.viewer.events.theme.disconnect(self._apply_theme)

    def _notify(self, level: str, text: str) -> None:
        if level in NOTIFIERS and not self.message_label.isVisible():
            NOTIFIERS[level](escape_rich_text(text))
        self.message_label.show_message(level, text)

    def _apply_theme(self, _: Any = None) -> None:
        theme = get_theme(self.viewer.theme)
        self.setStyleSheet(FOCUS_STYLE.format(color=theme.text.as_hex()))
        for plot_widget in (
            self.train.curves,
            self.train.history,
            self.strip,
            self.message_label,
        ):
            plot_widget.use_colors(theme.background.as_hex(), theme.text.as_hex())
        self.canvas_area.toolbar.use_colors(theme.current.as_hex(), theme.text.as_hex())
