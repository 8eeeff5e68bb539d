"""Small helpers that all sections of the panel share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtWidgets import QLabel, QPushButton, QSlider, QWidget
from superqt.utils import signals_blocked

from napari_dycon.errors import DyconError
from napari_dycon.session import Session

__all__ = ["button", "guarded", "hint", "set_enabled", "signals_blocked", "slider"]


def button(text: str, tip: str, clicked: Callable[[], Any]) -> QPushButton:
    """Push button with a tooltip."""
    result = QPushButton(text)
    result.setToolTip(tip)
    result.setProperty("dycon_tip", tip)
    result.clicked.connect(lambda _checked=False: clicked())
    return result


def set_enabled(widget: QWidget, why_not: str) -> None:
    """Enable a control when ``why_not`` is empty; otherwise its tooltip says why it is off."""
    tip = str(widget.property("dycon_tip") or "")
    widget.setEnabled(not why_not)
    widget.setToolTip(f"{tip}\nNot now: {why_not}" if why_not else tip)


def hint(text: str) -> QLabel:
    """Wrapped explanatory text."""
    label = QLabel(text)
    label.setWordWrap(True)
    return label


def slider(value: float, tip: str, changed: Callable[[float], None]) -> QSlider:
    """Horizontal slider from 0 to 1."""
    from qtpy.QtCore import Qt

    result = QSlider(Qt.Orientation.Horizontal)
    result.setRange(0, 100)
    result.setValue(round(value * 100))
    result.setToolTip(tip)
    result.valueChanged.connect(lambda v: changed(v / 100))
    return result


def guarded(session: Session, work: Callable[..., Any]) -> Callable[..., Any]:
    """Turn errors of a command into a message; buttons keep working."""

    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return work(*args, **kwargs)
        except DyconError as error:
            session.message.emit("error", str(error))
            return None

    return run
