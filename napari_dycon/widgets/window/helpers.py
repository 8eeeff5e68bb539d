"""Small helpers that all sections of the panel share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import QLabel, QPushButton, QWidget
from superqt.utils import signals_blocked

from napari_dycon.core.text import escape_control_characters, escape_rich_text
from napari_dycon.errors import DyconError
from napari_dycon.session import Session

__all__ = [
    "flags_to_int",
    "make_button",
    "make_color_icon",
    "make_hint_label",
    "make_plain_label",
    "report_errors",
    "set_enabled",
    "signals_blocked",
]


def make_button(text: str, tip: str, on_click: Callable[[], Any]) -> QPushButton:
    """Create a push button with a tooltip."""
    result = QPushButton(text)
    result.setToolTip(tip)
    result.setProperty("dycon_tip", tip)
    result.clicked.connect(lambda _checked=False: on_click())
    return result


def make_color_icon(color: str, size_px: int) -> QIcon:
    """Create a square icon of one color."""
    pixmap = QPixmap(size_px, size_px)
    pixmap.fill(QColor(color))
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Selected)  # Qt would tint it
    return icon


def set_enabled(widget: QWidget, disabled_reason: str | None) -> None:
    """Enable a control, or show in its tooltip why it is disabled.

    It is enabled if ``disabled_reason`` is empty.
    """
    tip = str(widget.property("dycon_tip") or "")
    widget.setEnabled(not disabled_reason)
    widget.setToolTip(
        f"{tip}\nUnavailable: {escape_rich_text(disabled_reason)}" if disabled_reason else tip
    )


def make_plain_label(text: str = "", *, wrap: bool = True) -> QLabel:
    """Create a label that shows text literally, without interpreting HTML in names."""
    label = QLabel()
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setText(escape_control_characters(text))
    label.setWordWrap(wrap)
    return label


def make_hint_label(text: str) -> QLabel:
    """Create a label with wrapped explanatory text."""
    return make_plain_label(text)


def flags_to_int(flags: Any) -> int:
    """Return Qt flags as a number, which some calls require; PyQt6 has no ``int`` of flags."""
    return int(getattr(flags, "value", flags))


def report_errors(session: Session, action: Callable[..., Any]) -> Callable[..., Any]:
    """Turn errors of a command into a message; buttons keep working."""

    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return action(*args, **kwargs)
        except DyconError as error:
            session.message.emit("error", str(error))
            return None

    return run
