"""Elapsed time and progress of a run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator


class TrainingClock:
    """Clock that measures the elapsed time of a run without its pauses.

    Parameters
    ----------
    max_steps : steps of the run
    time_limit_s : time limit in seconds; ``None`` without a limit
    elapsed_s : seconds that have elapsed already, for example before a resume
    now : source of time, in seconds
    """

    def __init__(
        self,
        max_steps: int,
        time_limit_s: float | None,
        elapsed_s: float = 0.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_steps, self._time_limit_s = max_steps, time_limit_s
        self._now = now
        self.set_elapsed(elapsed_s)

    def elapsed(self) -> float:
        """Return the seconds that count towards the time limit."""
        return self._elapsed_before_s + self._now() - self._begin

    def progress(self, step: int) -> float:
        """Return progress in [0, 1]: by steps or by time, whichever is larger."""
        by_time = self.elapsed() / self._time_limit_s if self._time_limit_s else 0.0
        return min(max(step / self._max_steps, by_time), 1.0)

    def set_elapsed(self, elapsed_s: float) -> None:
        """Continue from a number of elapsed seconds."""
        self._elapsed_before_s = elapsed_s
        self._begin = self._now()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time spent in a block out of the elapsed time."""
        elapsed_s = self.elapsed()
        try:
            yield
        finally:
            self.set_elapsed(elapsed_s)
