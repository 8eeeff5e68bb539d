"""Progress of a prediction of several scans, including the templates before them."""

from __future__ import annotations

import time

from napari_dycon.project.runs.events import PredictingEvent


class PredictionProgress:
    """Counter of predicted scans, with an estimate of the remaining time.

    Parameters
    ----------
    total : scans to predict, without templates
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.n_finished = 0
        self._start_time = time.monotonic()

    def add(self, count: int) -> None:
        """Add to the number of scans to predict; may be negative."""
        self.total += count

    def start(self, case: str) -> PredictingEvent:
        """Return the event that announces the next case."""
        elapsed = time.monotonic() - self._start_time
        time_per_scan = elapsed / self.n_finished if self.n_finished else None
        remaining_s = None
        if time_per_scan is not None:
            remaining_s = round(time_per_scan * (self.total - self.n_finished), 1)
        return PredictingEvent(
            case=case, done=self.n_finished, total=self.total, remaining_s=remaining_s
        )

    def finish(self) -> None:
        """Count one more scan as done, whether or not its prediction succeeded."""
        self.n_finished += 1
