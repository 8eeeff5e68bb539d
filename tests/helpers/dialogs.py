"""Automatic answers to dialogs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication


def answer_dialog(work: Callable[[Any], None], kind: type) -> None:
    """Do something with the next dialog of a kind, as soon as it is there."""

    def look() -> None:
        dialog = QApplication.activeModalWidget()
        if isinstance(dialog, kind):
            work(dialog)
        else:
            QTimer.singleShot(20, look)

    QTimer.singleShot(20, look)
