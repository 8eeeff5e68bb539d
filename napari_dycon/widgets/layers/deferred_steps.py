"""Run callbacks in separate event-loop iterations, so that the window stays responsive."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from qtpy.QtCore import QObject, QTimer

MAX_WAIT_S = 0.005  # of a timer with an interval of zero, unless other events were handled


class DeferredSteps(QObject):
    """Runs steps in order, one per event-loop iteration."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._steps: deque[Callable[[], object]] = deque()
        self._timer = QTimer(self)  # interval 0: it fires when no other events are pending
        self._timer.timeout.connect(self._run_next)
        self._last_run = 0.0  # time on the monotonic clock
        self._gives_way = False

    def start(self, steps: Sequence[Callable[[], object]]) -> None:
        """Run these steps instead of the pending ones."""
        self._steps = deque(steps)
        self._timer.start()

    def add(self, steps: Sequence[Callable[[], object]]) -> None:
        """Run those of these steps that are not pending after those that are."""
        self._steps.extend([step for step in steps if step not in self._steps])
        self._timer.start()

    def is_pending(self, step: Callable[[], object]) -> bool:
        """Whether a step has not run yet."""
        return step in self._steps

    def skip(self, step: Callable[[], object]) -> None:
        """Drop a step if it is still pending."""
        if step in self._steps:
            self._steps.remove(step)

    def stop(self) -> None:
        """Drop all pending steps."""
        self._steps.clear()
        self._timer.stop()

    def _run_next(self) -> None:
        was_busy = time.monotonic() - self._last_run > MAX_WAIT_S
        self._gives_way = was_busy and not self._gives_way  # once before each step
        if self._gives_way:  # views were drawn; input comes first, in the next iteration
            return
        if self._steps:
            self._steps.popleft()()
            self._last_run = time.monotonic()
        if not self._steps:
            self._timer.stop()
