"""Helpers of the window benchmarks: run the event loop, and measure how long it is blocked."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

TICK_MS = 2
NOTICEABLE_MS = 50  # shortest gap that users notice


def settle(seconds: float) -> None:
    """Run the event loop for some seconds."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        QApplication.processEvents()
        time.sleep(0.0005)


def wait(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Run the event loop until a condition holds; exit after ``seconds``."""
    end = time.perf_counter() + seconds
    while not condition():
        if time.perf_counter() > end:
            raise SystemExit(f"the condition did not hold within {seconds:g} s")
        QApplication.processEvents()
        time.sleep(0.0005)


def is_idle(panel: Any) -> bool:
    """Return whether no background task is running."""
    return bool(panel.task_runner.is_idle and not panel.session.annotation.operation)


class LatencyMonitor:
    """Gaps between the ticks of a timer in the event loop of the window."""

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
        """Return the gaps since the reset, including the current one."""
        return [1000 * gap for gap in (*self._gaps, time.perf_counter() - self._last)]

    def longest_ms(self) -> float:
        """Return the longest gap since the reset."""
        return max(self.gaps_ms())

    def _tick(self) -> None:
        now = time.perf_counter()
        self._gaps.append(now - self._last)
        self._last = now


def summarize_gaps(gaps_ms: Sequence[float]) -> dict[str, Any]:
    """Return median, 95 % quantile, maximum, and the fraction of time in noticeable gaps."""
    gaps = np.asarray(gaps_ms)
    noticeable = gaps[gaps > NOTICEABLE_MS].sum() / gaps.sum()
    return {
        "median_ms": round(float(np.median(gaps)), 1),
        "p95_ms": round(float(np.quantile(gaps, 0.95)), 1),
        "longest_ms": round(float(gaps.max()), 1),
        "share_over_50_ms": round(float(noticeable), 4),
    }
