"""A clock for estimates of the remaining time."""

from __future__ import annotations


class Clock:
    """Time that passes on request."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now
