"""The window draws while other threads compute."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.gui

DEFAULT_INTERVAL_S = 0.005


def measure_slice_change_s(viewer: Any, qtbot: Any) -> float:
    """Median time to show and draw another slice, in seconds."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        viewer.dims.set_current_step(0, 1 - viewer.dims.current_step[0])
        viewer.window._qt_viewer.canvas.native.repaint()
        times.append(time.perf_counter() - start)
        qtbot.wait(1)
    return float(np.median(times))


def test_a_busy_thread_delays_drawing_less_than_by_default(opened_panel: Any, qtbot: Any) -> None:
    viewer, _ = opened_panel
    interval = sys.getswitchinterval()
    is_done = threading.Event()

    def compute() -> None:
        while not is_done.is_set():
            sum(range(1000))

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        short = measure_slice_change_s(viewer, qtbot)
        sys.setswitchinterval(DEFAULT_INTERVAL_S)
        long = measure_slice_change_s(viewer, qtbot)
    finally:
        sys.setswitchinterval(interval)
        is_done.set()
        thread.join()
    assert short < 0.7 * long
