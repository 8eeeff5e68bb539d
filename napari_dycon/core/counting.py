"""Count integers in volumes without delaying other threads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from napari_dycon.core.pauses import pause_if_needed

PART_VOXELS = 16_384


def count_values(array: npt.NDArray[np.integer], n_values: int) -> npt.NDArray[np.int64]:
    """Count how often each of the integers from 0 to ``n_values - 1`` occurs, ``(n_values,)``.

    NumPy holds Python's lock while it counts. A window that draws takes the lock hundreds of times
    for a picture, and would wait each time: so the array is counted in small parts.
    """
    flat = array.reshape(-1)
    counts = np.zeros(n_values, np.int64)
    for part in list_parts(flat.size):
        found = np.bincount(flat[part])
        counts[: len(found)] += found
    return counts


def list_parts(size: int) -> Iterator[slice]:
    """Yield the parts in which an array of this size is counted, with pauses between them."""
    for start in range(0, size, PART_VOXELS):
        pause_if_needed()
        yield slice(start, start + PART_VOXELS)
