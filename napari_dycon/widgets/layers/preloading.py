"""Keep the first scan of a window, and each layer that is removed, from blocking it."""

from __future__ import annotations

import functools
import gc

import numpy as np
from napari.layers import Labels


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
