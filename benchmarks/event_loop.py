"""Waiting in a benchmark of the window, while the window lives."""

from __future__ import annotations

import time
from collections.abc import Callable

from qtpy.QtWidgets import QApplication


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
