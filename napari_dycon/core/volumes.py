"""Volumes as people read them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def format_ml(ml: float) -> str:
    """Format a volume in milliliters, without the unit: "28.1", "1.25", "0.004"."""
    if ml >= 10:
        return f"{ml:.1f}"
    return f"{ml:.2f}" if ml >= 0.1 or ml == 0 else f"{ml:.3f}"


def voxel_volume_ml(spacing_mm: Sequence[float]) -> float:
    """Return the volume of a voxel in milliliters."""
    return float(np.prod(spacing_mm)) / 1000.0
