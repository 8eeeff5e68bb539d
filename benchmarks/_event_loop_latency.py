"""What benchmarks of the window share: waiting while it lives, and how long it stood still."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

TICK_MS = 2
NOTICED_MS = 50  # a gap that a person notices


def settle(seconds: float) -> None:
    """Let the event loop run."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        QApplication.processEvents()
        time.sleep(0.0005)


def wait(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Let the event loop run until something is the case."""
    end = time.perf_counter() + seconds
    while not condition():
        if time.perf_counter() > end:
            raise SystemExit("waited in vain")
        QApplication.processEvents()
        time.sleep(0.0005)


class Heartbeat:
    """Gaps between the ticks of a timer in the window's event loop."""

    def __init__(self) -> None:
        self._gaps: list[float] = []
        self._last = time.perf_counter()
        self._timer = QTimer()
        self._timer.timeout.connect(self._tick)
        self._timer.start(TICK_MS)

    def reset(self) -> None:
        """Start a new measurement."""
        self._last = time.perf_counter()
        self._gaps = []

    def gaps_ms(self) -> list[float]:
        """Gaps since the reset, the one that has not ended yet included."""
        return [1000 * gap for gap in (*self._gaps, time.perf_counter() - self._last)]

    def longest_ms(self) -> float:
        """Longest gap since the reset."""
        return max(self.gaps_ms())

    def _tick(self) -> None:
        now = time.perf_counter()
        self._gaps.append(now - self._last)
        self._last = now


def summarize_gaps(gaps_ms: Sequence[float]) -> dict[str, Any]:
    """Median, 95 %, longest, and the share of time in gaps that a person notices."""
    gaps = np.asarray(gaps_ms)
    noticed = gaps[gaps > NOTICED_MS].sum() / gaps.sum()
    return {
        "median_ms": round(float(np.median(gaps)), 1),
        "p95_ms": round(float(np.quantile(gaps, 0.95)), 1),
        "longest_ms": round(float(gaps.max()), 1),
        "share_over_50_ms": round(float(noticed), 4),
    }
