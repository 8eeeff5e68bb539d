"""Tells when a window has become wider or narrower."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, QTimer, Signal
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QWidget

PAUSE_MS = 150  # without a further change, after which a window counts as resized


class WindowWidth(QObject):
    """Emits ``changed`` with the width of a window once its size no longer changes.

    The arrangement follows the window and not the screen: a window may fill half of a large screen,
    and a screen that is scaled has few points.
    """

    changed = Signal(int)

    def __init__(self, window: QWidget) -> None:
        super().__init__(window)
        self.width = window.width()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(PAUSE_MS)
        self._timer.timeout.connect(lambda: self.changed.emit(self.width))
        window.installEventFilter(self)

    def eventFilter(self, _: QObject, event: QEvent) -> bool:  # noqa: N802 (Qt's name)
        """Note a new width."""
        if isinstance(event, QResizeEvent) and event.size().width() != self.width:
            self.width = event.size().width()
            self._timer.start()
        return False

    def close(self) -> None:
        """Stop watching the window."""
        self._timer.stop()
        window = self.parent()
        if window is not None:
            window.removeEventFilter(self)
        self.deleteLater()
