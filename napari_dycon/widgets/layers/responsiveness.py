"""Settings of Python, and libraries loaded early, that keep the window responsive."""

from __future__ import annotations

import functools
import gc
import sys

import numpy as np
from napari.layers import Labels

SWITCH_INTERVAL_S = 0.0005  # of Python's threads; a tenth of its default


def shorten_thread_switches() -> None:
    """Let the main thread continue sooner while other threads compute.

    Each of the hundreds of OpenGL calls that draw a view may have to wait for this interval: with
    one busy thread, a change of the slice blocked the window for 0.44 s instead of 0.15 s.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)


@functools.cache
def exempt_libraries_from_collection() -> None:
    """Let Python's garbage collector skip all objects that exist now; once in a process.

    napari collects garbage in each view whenever a layer is removed. Among the objects of napari,
    torch and others, which stay anyway, that took 0.2 s each time.
    """
    gc.freeze()


@functools.cache
def load_layer_libraries() -> None:
    """Load what napari loads with its first layer: units and tables; 0.5 s, in any thread.

    Once in a process: napari changes filters of warnings while it makes a layer, for all threads.
    """
    Labels(np.zeros((1, 1, 1), np.uint8))
