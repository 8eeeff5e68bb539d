"""Places where a prediction is unsure, in the order worth looking at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

SMALLEST = 4  # voxels; single noisy voxels are no place to go to


@dataclass(frozen=True)
class HotSpot:
    """A connected region of high uncertainty.

    ``centre`` is its most uncertain inner voxel ``(d, h, w)``, ``mass`` the sum of its uncertainty.
    """

    centre: tuple[int, int, int]
    mass: float
    voxels: int


def find_hot_spots(
    uncertainty: npt.NDArray[np.floating[Any]], threshold: float | None = None, most: int = 50
) -> list[HotSpot]:
    """Connected regions above a threshold, the heaviest first.

    Parameters
    ----------
    uncertainty : (D, H, W), in [0, 1]
    threshold : by default half of the map's 99.9 % quantile, and at least 0.1
    most : how many regions at most
    """
    if threshold is None:
        threshold = max(0.5 * float(np.quantile(uncertainty, 0.999)), 0.1)
    labels, count = ndimage.label(uncertainty >= threshold)
    if not count:
        return []
    index = np.arange(1, count + 1)
    masses = ndimage.sum_labels(uncertainty, labels, index)
    sizes = ndimage.sum_labels(np.ones_like(labels), labels, index).astype(int)
    # Smoothed, so that the centre lies in the thick of the region and not on one noisy voxel.
    smooth = ndimage.uniform_filter(uncertainty, 3)
    order = [i for i in np.argsort(-masses) if sizes[i] >= SMALLEST][:most]
    places = ndimage.maximum_position(smooth, labels, index[order]) if order else []
    return [
        HotSpot((int(p[0]), int(p[1]), int(p[2])), float(masses[i]), int(sizes[i]))
        for i, p in zip(order, places, strict=True)
    ]
