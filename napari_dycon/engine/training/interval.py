"""Timing of periodic tasks: due after a period, limited to a fraction of the time."""

from __future__ import annotations


class Interval:
    """Timer that is due once a period has passed and the task stays within its time fraction.

    Parameters
    ----------
    period_s : seconds between the end of one task and the start of the next
    max_fraction : maximum fraction of the run's time; the first task is due in any case
    first_delay_s : seconds before the first task, by default the period
    """

    def __init__(
        self, period_s: float, max_fraction: float, *, first_delay_s: float | None = None
    ) -> None:
        self._period_s, self._max_fraction = period_s, max_fraction
        self._wait_s = period_s if first_delay_s is None else first_delay_s
        self._origin: float | None = None  # time of the first call
        self._end = 0.0  # of the last task
        self._total_duration = self._last_duration = 0.0

    def is_due(self, now: float) -> bool:
        """Return whether to start the task; ``now`` is the elapsed time of the run in seconds."""
        if self._origin is None:
            self._origin = self._end = now
        if now - self._end < self._wait_s:
            return False
        allowed = self._max_fraction * (now - self._origin)
        return self._last_duration == 0.0 or self._total_duration + self._last_duration <= allowed

    def record(self, now: float, duration: float) -> None:
        """Record the end of the task and its duration in seconds."""
        self._total_duration += duration
        self._last_duration = duration
        self._end, self._wait_s = now, self._period_s
