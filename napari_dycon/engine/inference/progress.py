"""How far a prediction of many scans is, counting the templates that precede them."""

from __future__ import annotations

import time

from napari_dycon.project.runs.events import Event


class PredictionProgress:
    """Counts the scans that are predicted, and estimates the time that is left.

    Parameters
    ----------
    total : scans to predict, templates not among them
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self._begin = time.monotonic()

    def add(self, count: int) -> None:
        """Count more scans to predict; fewer, where negative."""
        self.total += count

    def start(self, case: str) -> Event:
        """Return the event that tells that a case is predicted next."""
        elapsed = time.monotonic() - self._begin
        each = elapsed / self.done if self.done else None
        return {
            "event": "predicting",
            "case": case,
            "done": self.done,
            "total": self.total,
            "remaining": None if each is None else round(each * (self.total - self.done), 1),
        }

    def finish(self) -> None:
        """Count one more scan as done, whether or not it could be predicted."""
        self.done += 1
