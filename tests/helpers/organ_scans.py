"""Made-up scans of one organ."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SHAPE = (20, 24, 22)
ORGAN = np.zeros(SHAPE, np.uint8)
ORGAN[5:15, 6:18, 5:17] = 1


def make_scan(
    organ: npt.NDArray[np.uint8], seed: int, brightness: float = 2.0
) -> npt.NDArray[np.float32]:
    """Return a scan ``(1, D, H, W)`` of noise in which an organ is brighter."""
    noise = np.random.default_rng(seed).normal(0.0, 0.3, SHAPE)
    return (organ * brightness + noise).astype(np.float32)[None]
