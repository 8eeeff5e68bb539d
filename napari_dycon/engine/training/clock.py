"""Elapsed time and progress of a run."""

from __future__ import annotations

import contextlib
import math
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
        self.max_steps, self.time_limit_s = max_steps, time_limit_s
        self._now = now
        self._reserved_s = 0.0
        self.set_elapsed(elapsed_s)

    @property
    def is_limited(self) -> bool:
        """Whether the run has a time limit."""
        return self.time_limit_s is not None

    def elapsed(self) -> float:
        """Return the seconds that count towards the time limit."""
        return self._elapsed_before_s + self._now() - self._begin

    def time_left(self) -> float:
        """Return the seconds until the time limit, at least 0; infinite without a limit."""
        return max((self.time_limit_s or math.inf) - self.elapsed(), 0.0)

    def training_time_left(self) -> float:
        """Return the seconds that are left for steps; infinite without a limit."""
        return max(self.time_left() - self._reserved_s, 0.0)

    def reserve(self, seconds: float) -> None:
        """Reserve time for the end of the run; training ends that much before the time limit."""
        self._reserved_s = min(seconds, 0.5 * (self.time_limit_s or 0.0))

    def progress(self, step: int) -> float:
        """Return progress in [0, 1] of the training: by steps or by time, whichever is larger."""
        by_time = 0.0
        if self.time_limit_s:
            by_time = self.elapsed() / (self.time_limit_s - self._reserved_s)
        return min(max(step / self.max_steps, by_time), 1.0)

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
