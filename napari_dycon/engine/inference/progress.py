"""How far a prediction of many scans is, counting the templates that precede them."""

from __future__ import annotations

import time

from napari_dycon.project.runs.events import PredictingEvent


class PredictionProgress:
    """Counts the scans that are predicted, and estimates the time that is left.

    Parameters
    ----------
    total : scans to predict, templates not among them
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.n_finished = 0
        self._start_time = time.monotonic()

    def add(self, count: int) -> None:
        """Count more scans to predict; fewer, where negative."""
        self.total += count

    def start(self, case: str) -> PredictingEvent:
        """Return the event that tells that a case is predicted next."""
        elapsed = time.monotonic() - self._start_time
        time_per_scan = elapsed / self.n_finished if self.n_finished else None
        remaining_s = None
        if time_per_scan is not None:
            remaining_s = round(time_per_scan * (self.total - self.n_finished), 1)
        return PredictingEvent(
            case=case, done=self.n_finished, total=self.total, remaining_s=remaining_s
        )

    def finish(self) -> None:
        """Count one more scan as done, whether or not it could be predicted."""
        self.n_finished += 1
