"""Work in several turns of the event loop, so that the window draws and listens in between."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from qtpy.QtCore import QObject, QTimer


class DeferredSteps(QObject):
    """Does steps in their order, one a turn; new ones take the place of those that wait."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._steps: deque[Callable[[], object]] = deque()
        self._timer = QTimer(self)  # of no interval: it fires when everything else was listened to
        self._timer.timeout.connect(self._run_next)

    def start(self, steps: Sequence[Callable[[], object]]) -> None:
        """Do these steps from the next turn on."""
        self._steps = deque(steps)
        self._timer.start()

    def skip(self, step: Callable[[], object]) -> None:
        """Leave a step out, if it still waits."""
        if step in self._steps:
            self._steps.remove(step)

    def stop(self) -> None:
        """Leave out all that still wait."""
        self._steps.clear()
        self._timer.stop()

    def _run_next(self) -> None:
        if self._steps:
            self._steps.popleft()()
        if not self._steps:
            self._timer.stop()
