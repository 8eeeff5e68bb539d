"""When a task that interrupts training is due: after a period, within a share of the time."""

from __future__ import annotations


class Interval:
    """Due once a period has passed and the task would stay within its share of the time.

    Parameters
    ----------
    period : seconds between the end of one and the start of the next
    max_fraction : of the run's time that goes into the task; the first one is due in any case
    first : seconds before the first one, by default the period
    """

    def __init__(
        self, period_s: float, max_fraction: float, *, first_delay_s: float | None = None
    ) -> None:
        self._period_s, self._max_fraction = period_s, max_fraction
        self._wait_s = period_s if first_delay_s is None else first_delay_s
        self._origin: float | None = None  # moment of the first question
        self._end = 0.0  # of the last task
        self._total_duration = self._last_duration = 0.0

    def is_due(self, now: float) -> bool:
        """Return whether to start the task; ``now`` is the run's own time in seconds."""
        if self._origin is None:
            self._origin = self._end = now
        if now - self._end < self._wait_s:
            return False
        allowed = self._max_fraction * (now - self._origin)
        return self._last_duration == 0.0 or self._total_duration + self._last_duration <= allowed

    def record(self, now: float, duration: float) -> None:
        """Note that the task has ended now and how long it took."""
        self._total_duration += duration
        self._last_duration = duration
        self._end, self._wait_s = now, self._period_s
