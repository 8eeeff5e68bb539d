"""Low-priority background tasks: run one at a time while the user pauses.

A view that is drawn takes Python's lock hundreds of times. On two processors, each thread that
computes meanwhile made a stroke in three views of a large scan several times slower.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from qtpy.QtCore import QObject, QTimer

from napari_dycon.core.pauses import run_with_pauses
from napari_dycon.widgets.background.interaction import MAX_WAIT_S, InteractionMonitor

# Runs a task in a thread and delivers its result, or its error, on the main thread.
Submit = Callable[
    [Callable[[], Any], Callable[[Any], None], Callable[[Exception], None]],
    None,
]


class _IdleTask(NamedTuple):
    task: Callable[[], Any]
    on_done: Callable[[Any], None]
    on_error: Callable[[Exception], None]
    start_by: float  # on the monotonic clock, in s


class IdleTasks(QObject):
    """Queue of tasks; a new one replaces one of the same key, also one that is running."""

    def __init__(self, submit: Submit, interactions: InteractionMonitor) -> None:
        super().__init__()
        self._submit = submit
        self._interactions = interactions
        self._pending: dict[str, _IdleTask] = {}
        self._is_running = False
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._start_next)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is waiting."""
        return not self._pending

    def add(
        self,
        key: str,
        task: Callable[[], Any],
        on_done: Callable[[Any], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        """Run a task as soon as the user pauses, or after some seconds without a pause."""
        replaced = self._pending.get(key)
        start_by = time.monotonic() + MAX_WAIT_S if replaced is None else replaced.start_by
        self._pending[key] = _IdleTask(task, on_done, on_error, start_by)
        self._schedule()

    def close(self) -> None:
        """Drop everything that is waiting."""
        self._timer.stop()
        self._pending.clear()

    def _schedule(self) -> None:
        if self._pending and not self._is_running and not self._timer.isActive():
            self._timer.start(round(1000 * self._interactions.remaining_s))

    def _start_next(self) -> None:
        if self._is_running or not self._pending:
            return
        key, idle_task = next(iter(self._pending.items()))
        if self._interactions.remaining_s > 0 and time.monotonic() < idle_task.start_by:
            self._schedule()
            return
        del self._pending[key]
        self._is_running = True

        def deliver(receiver: Callable[[Any], None]) -> Callable[[Any], None]:
            def on_end(answer: Any) -> None:
                self._is_running = False
                try:
                    if key not in self._pending:  # otherwise it is outdated
                        receiver(answer)
                finally:
                    self._schedule()

            return on_end

        pause_point = self._interactions.make_pause_point()
        self._submit(
            lambda: run_with_pauses(idle_task.task, pause_point),
            deliver(idle_task.on_done),
            deliver(idle_task.on_error),
        )
