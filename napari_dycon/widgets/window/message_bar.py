"""The message area: news, warnings and errors, which differ in icon and color.

It has one height whether there is a message or not, so that nothing moves under the mouse. Messages
go when they are no longer true: news after some seconds, news and warnings when another case is
shown, a training starts, or the edit they tell of is undone. Results of long tasks stay until the
next training or prediction starts. Errors stay until they are dismissed or replaced.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Literal

from qtpy.QtCore import QEvent, QPointF, QRectF, Qt, QTimer
from qtpy.QtGui import QColor, QPainter, QPixmap, QPolygonF, QResizeEvent, QShowEvent
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QHBoxLayout,
    QLabel,
    QPlainTextEdit,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_dycon.application.training.status import RunStatus
from napari_dycon.core.text import escape_control_characters, escape_rich_text
from napari_dycon.session import Session
from napari_dycon.widgets.window.contrast import contrast_ratio
from napari_dycon.widgets.window.helpers import flags_to_int, make_plain_label

Level = Literal["info", "warning", "error"]
NEWS_SECONDS = 15.0
SEQUEL_S = 0.3  # messages within this time come together
MAX_RECENT = 50  # messages that can be read again
LINES, LINES_IN_TALL_PANELS = 2, 3  # reserved
TALL_PANEL_PX = 780
ICON_PX = 16
LEVEL_NAMES: dict[Level, str] = {"info": "News", "warning": "Warning", "error": "Error"}
# For dark and for light backgrounds; the one with the better contrast is used.
LEVEL_COLORS: dict[Level, tuple[str, str]] = {
    "info": ("#7cc4ff", "#0b5cad"),
    "warning": ("#ffb454", "#7a4300"),
    "error": ("#ff9a94", "#a80016"),
}


def choose_color(level: Level, background: str) -> str:
    """Return the color of a level that is easier to read on a background."""
    return max(LEVEL_COLORS[level], key=lambda color: contrast_ratio(color, background))


class MessageBar(QWidget):
    """Shows the newest message; older ones can be read again in a dialog."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.level: Level = "info"
        self._text = ""
        self._is_result = False  # of a long task, which may end unwatched
        self._shown_at = 0.0
        self._background = "#262930"
        self._panel_height = 0
        self._recent: deque[tuple[str, Level, str]] = deque(maxlen=MAX_RECENT)
        self.icon_label = QLabel()
        self.icon_label.setFixedSize(ICON_PX, ICON_PX)
        self.text_label = make_plain_label()
        self.text_label.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
        self.text_label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.text_label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.undo_button = self._make_button("Undo", "Take this back (Ctrl+Z)", self._undo)
        self._undo_action: Callable[[], object] | None = None
        self.dismiss_button = self._make_button("✕", "Dismiss this message", self.dismiss)
        self.recent_button = self._make_button("⋯", "Recent messages", self.show_recent)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.icon_label, 0, Qt.AlignmentFlag.AlignTop)
        layout.addWidget(self.text_label, 1)
        for button in (self.undo_button, self.dismiss_button, self.recent_button):
            layout.addWidget(button, 0, Qt.AlignmentFlag.AlignTop)
        self._reserve_space()
        self._news_timer = QTimer(self)
        self._news_timer.setSingleShot(True)
        self._news_timer.setInterval(round(1000 * NEWS_SECONDS))
        self._news_timer.timeout.connect(self.dismiss)
        self._session = session
        self._had_case = False  # when the message came
        session.state.undo_offered.connect(self.offer_undo)
        session.case_shown.connect(self._drop_of_case)
        session.run_changed.connect(self._on_run_changed)
        session.project_changed.connect(self._drop_result)
        self._is_predicting = False
        session.review.predictions.status_changed.connect(self._on_prediction_changed)
        session.state.edit_undone.connect(self.drop_outdated)
        self._show()

    def text(self) -> str:
        """Return the message shown; empty if there is none."""
        return self._text

    def show_message(self, level: str, text: str) -> None:
        """Show a message; an empty text only drops one that is outdated.

        Messages that come together are shown together.
        """
        if not text:
            self._drop_of_case()
            return
        new_level: Level = "info"
        if level in ("warning", "error"):
            new_level = level  # type: ignore[assignment]
        text = escape_control_characters(text)
        self._recent.append((time.strftime("%H:%M:%S"), new_level, text))
        if level == "result":
            self._text = ""  # not shown together with news before
        is_sequel = time.monotonic() - self._shown_at < SEQUEL_S and new_level == self.level
        if is_sequel and text not in self._text and self._text not in text:
            text = f"{self._text}\n{text}"
        self.level, self._text, self._shown_at = new_level, text, time.monotonic()
        self._undo_action = None
        self._had_case = self._session.case is not None
        self._is_result = level == "result" or (is_sequel and self._is_result)
        self._show()
        if self.level == "info" and not self._is_result:
            self._news_timer.start()
        else:
            self._news_timer.stop()

    def offer_undo(self, text: str, undo: Callable[[], object]) -> None:
        """Show news of an edit with a button that takes it back; they stay until the next one."""
        self.dismiss()  # never shown together with another message
        self.show_message("info", text)
        self._news_timer.stop()
        self._undo_action = undo
        self._show()

    def _undo(self) -> None:
        if self._undo_action is not None:
            self._undo_action()

    def dismiss(self) -> None:
        """Remove the message."""
        self._news_timer.stop()
        self._text, self._undo_action, self._is_result = "", None, False
        self._show()

    def drop_outdated(self, *_: object) -> None:
        """Remove news and warnings; errors and results of long tasks stay."""
        if self.level != "error" and not self._is_result:
            self.dismiss()

    def _drop_of_case(self, *_: object) -> None:
        """Remove what is about the case before; news of a new project are about none."""
        if self._had_case:
            self.drop_outdated()

    def _drop_result(self, *_: object) -> None:
        """Remove what the next task or project makes untrue."""
        self._is_result = False
        self.drop_outdated()

    def use_colors(self, background: str, foreground: str) -> None:
        """Apply the colors of the theme."""
        del foreground  # each level has its own
        self._background = background
        self._show()

    def adapt_to_height(self, panel_height: int) -> None:
        """Reserve as many lines as the height of the panel allows."""
        is_same = (panel_height >= TALL_PANEL_PX) == (self._panel_height >= TALL_PANEL_PX)
        self._panel_height = panel_height
        if not is_same:
            self._reserve_space()
            self._shorten()

    def show_recent(self) -> None:
        """Show the recent messages in a dialog, in full length."""
        lines = [f"{when}  {LEVEL_NAMES[level]}: {text}" for when, level, text in self._recent]
        view = QPlainTextEdit("\n\n".join(reversed(lines)) or "No messages yet.")
        view.setReadOnly(True)
        dialog = QDialog(self)
        dialog.setWindowTitle("Recent messages")
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.resize(560, 320)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(dialog.close)
        layout = QVBoxLayout(dialog)
        layout.addWidget(view)
        layout.addWidget(buttons)
        dialog.show()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 (Qt's name)
        """Shorten the text to the new width."""
        super().resizeEvent(event)
        self._shorten()

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802 (Qt's name)
        """Reserve space for the font of the theme, which is set after construction."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange):
            self._reserve_space()
            self._shorten()

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 (Qt's name)
        """Reserve space for the font of the theme."""
        super().showEvent(event)
        self._reserve_space()
        self._shorten()

    def _on_run_changed(self, status: RunStatus) -> None:
        if status.phase == "starting":
            self._drop_result()

    def _on_prediction_changed(self, status: object) -> None:
        is_running = status is not None
        if is_running and not self._is_predicting:
            self._drop_result()
        self._is_predicting = is_running

    def _reserve_space(self) -> None:
        self.text_label.ensurePolished()
        lines = LINES_IN_TALL_PANELS if self._panel_height >= TALL_PANEL_PX else LINES
        height = lines * self.text_label.fontMetrics().height() + 4
        self.text_label.setFixedHeight(height)
        self.setFixedHeight(max(height, self.dismiss_button.sizeHint().height()))
        policy = self.dismiss_button.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        self.dismiss_button.setSizePolicy(policy)

    def _show(self) -> None:
        color = choose_color(self.level, self._background)
        self.text_label.setStyleSheet(f"color: {color};")
        self.dismiss_button.setVisible(bool(self._text))
        self.undo_button.setVisible(self._undo_action is not None)
        self.icon_label.setPixmap(
            _draw_icon(self.level, color, self._background) if self._text else QPixmap()
        )
        name = f"{LEVEL_NAMES[self.level]}: {self._text}" if self._text else "No message"
        self.text_label.setAccessibleName(name)
        self.text_label.setToolTip(escape_rich_text(self._text))
        self._shorten()

    def _shorten(self) -> None:
        """Show as much of the text as fits into the reserved lines."""
        text = self._text
        while text and not self._fits(text):
            words = text.removesuffix(" …").rsplit(" ", 1)
            shorter = words[0] if len(words) > 1 else text[: len(text) // 2]
            text = f"{shorter} …"
            if len(text) < 10:
                break
        self.text_label.setText(text)

    def _fits(self, text: str) -> bool:
        label = self.text_label
        flags = flags_to_int(Qt.TextFlag.TextWordWrap)
        width = max(label.width() - 4, 50)
        bounds = label.fontMetrics().boundingRect(0, 0, width, 10_000, flags, text)
        return bool(bounds.height() <= label.height() and bounds.width() <= width)

    @staticmethod
    def _make_button(text: str, tip: str, on_click: object) -> QToolButton:
        button = QToolButton()
        button.setText(text)
        button.setToolTip(tip)
        button.setAccessibleName(tip)
        button.clicked.connect(on_click)
        return button


def _draw_icon(level: Level, color: str, background: str) -> QPixmap:
    """Draw a circle with "i", a triangle with "!" or a square with "×"."""
    pixmap = QPixmap(ICON_PX, ICON_PX)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(color))
    area = QRectF(1, 1, ICON_PX - 2, ICON_PX - 2)
    if level == "info":
        painter.drawEllipse(area)
    elif level == "warning":
        corners = (QPointF(ICON_PX / 2, 1), area.bottomRight(), area.bottomLeft())
        painter.drawPolygon(QPolygonF(corners))
    else:
        painter.drawRoundedRect(area, 3, 3)
    font = painter.font()
    font.setBold(True)
    font.setPixelSize(ICON_PX - 5)
    painter.setFont(font)
    painter.setPen(QColor(background))
    symbol = {"info": "i", "warning": "!", "error": "×"}[level]
    center = flags_to_int(Qt.AlignmentFlag.AlignCenter)
    painter.drawText(area.translated(0, 1 if level == "warning" else 0), center, symbol)
    painter.end()
    return pixmap
