"""Background tasks as the user sees them: what is done, how far it is, how to cancel it."""

from __future__ import annotations

import time
from collections.abc import Callable

from psygnal import Signal

from napari_dycon.core.durations import format_remaining
from napari_dycon.errors import CancelledError

MIN_ELAPSED_S = 3.0  # before the remaining time is estimated
MIN_FRACTION = 0.05


class Activity:
    """A running task.

    ``report`` is called by the thread of the task, everything else on the main thread.

    Attributes
    ----------
    title : what the task does, as in "Interpolating slices"
    can_cancel : whether the task can be canceled
    """

    def __init__(self, title: str, *, can_cancel: bool = False) -> None:
        self.title = title
        # One value, since the thread of the task replaces it at any time.
        self._state: tuple[str, float | None] = ("", None)
        self.can_cancel = can_cancel
        self.on_cancel_requested: Callable[[], None] | None = None
        self._described = ""  # text of a process, which describes itself
        self._is_canceled = False
        self._start = time.monotonic()

    @property
    def fraction(self) -> float | None:
        """Progress from 0 to 1; ``None`` while it is unknown."""
        return self._state[1]

    @property
    def is_canceled(self) -> bool:
        """Whether the user has canceled the task; it may still be ending."""
        return self._is_canceled

    def report(self, done: int, total: int, name: str) -> None:
        """Report progress; raises ``CancelledError`` once the task is canceled."""
        if self._is_canceled:
            raise CancelledError
        self._state = (name, min(done / total, 1.0) if total > 0 else None)

    def describe(self, text: str, fraction: float | None) -> None:
        """Show the text of a process, which includes the remaining time, and its progress."""
        self._described, self._state = text, ("", fraction)

    def cancel(self) -> None:
        """Cancel the task."""
        if not self.can_cancel or self._is_canceled:
            return
        self._is_canceled = True
        if self.on_cancel_requested is not None:
            self.on_cancel_requested()

    @property
    def text(self) -> str:
        """What the task does, with its current item and the remaining time."""
        if self._is_canceled:
            return f"{self.title}: canceling…"
        if self._described:
            return self._described
        detail, fraction = self._state
        text = f"{self.title}: {detail}" if detail else f"{self.title}…"
        remaining = format_remaining(self._estimate_remaining(fraction))
        return f"{text}, {remaining}" if remaining else text

    def _estimate_remaining(self, fraction: float | None) -> float | None:
        elapsed = time.monotonic() - self._start
        if fraction is None or fraction < MIN_FRACTION or elapsed < MIN_ELAPSED_S:
            return None
        return elapsed * (1.0 - fraction) / fraction


class Activities:
    """The running tasks, the oldest first."""

    changed = Signal()  # a task started, ended or progressed

    def __init__(self) -> None:
        self.running: list[Activity] = []

    def add(self, activity: Activity) -> None:
        """Add a task that starts."""
        self.running.append(activity)
        self.changed.emit()

    def remove(self, activity: Activity) -> None:
        """Remove a task that ended; safe to call twice."""
        if activity in self.running:
            self.running.remove(activity)
            self.changed.emit()
