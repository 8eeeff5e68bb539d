"""Window and level: the range of intensities that is displayed as black to white.

CT has the usual presets in Hounsfield units; head CT opens in the brain window. Other scans have no
fixed scale, so the range is chosen from their intensities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_dycon.core.types import Array
from napari_dycon.io.volume import intensity_range

Range = tuple[float, float]  # lowest and highest intensity shown

# Usual radiology presets in Hounsfield units.
CT_WINDOWS: dict[str, Range] = {
    "Brain": (0.0, 80.0),
    "Soft tissue": (-160.0, 240.0),
    "Lung": (-1350.0, 150.0),
    "Bone": (-450.0, 1050.0),
}
AUTOMATIC, FULL_RANGE = "Automatic", "Full range"
HISTOGRAM_BINS = 128
STEPS_OF_RANGE = 200  # that shown decimals must at least distinguish
MAX_DECIMALS = 6
# Criteria of a head CT: a body that fits a head coil, and soft tissue that is mostly brain.
BODY_THRESHOLD_HU = -300.0
MAX_HEAD_WIDTH_MM, MIN_HEAD_WIDTH_MM = 230.0, 90.0
MAX_HEAD_LENGTH_MM = 280.0
SOFT_TISSUE_HU, BRAIN_HU = (-200.0, 100.0), (10.0, 60.0)
MIN_BRAIN_FRACTION = 0.55


@dataclass(frozen=True)
class IntensityStatistics:
    """Intensities of a channel, computed on every second voxel of each axis.

    ``automatic`` excludes the darkest and brightest half percent, ``full`` is everything;
    ``counts`` is the histogram over ``full``.
    """

    automatic: Range
    full: Range
    counts: npt.NDArray[np.int64]


def compute_statistics(channel: Array) -> IntensityStatistics:
    """Compute the statistics of a channel ``(D, H, W)``."""
    sample = channel[::2, ::2, ::2]
    low, high = intensity_range(sample)
    full_low, full_high = float(sample.min()), float(sample.max())
    full = full_low, max(full_high, full_low + 1e-6)
    counts, _ = np.histogram(sample, bins=HISTOGRAM_BINS, range=full)
    return IntensityStatistics((low, max(high, low + 1e-6)), full, counts.astype(np.int64))


def choose_decimals(limits: Range) -> int:
    """Choose how many decimals of intensities are shown: those that matter within a range."""
    span = limits[1] - limits[0]
    if span <= 0:
        return MAX_DECIMALS
    return min(max(math.ceil(math.log10(STEPS_OF_RANGE / span)), 0), MAX_DECIMALS)


def format_intensity(value: float, decimals: int) -> str:
    """Format an intensity, rounding halves up as Qt's number fields do."""
    scale = 10**decimals
    return f"{math.floor(value * scale + 0.5) / scale:.{decimals}f}"


def is_head_ct(channel: Array, spacing_mm: tuple[float, float, float]) -> bool:
    """Whether a CT in Hounsfield units shows a head.

    Files do not reliably say so; the size of the body in the axial plane and the share of brain
    among its soft tissue do.

    Parameters
    ----------
    channel : (D, H, W), canonical
    spacing_mm : along D, H, W
    """
    sample = channel[::2, ::2, ::2]
    is_body = sample > BODY_THRESHOLD_HU
    # A slice counts if its body is at least a fifth of the largest one.
    areas = is_body.sum(axis=(1, 2))
    slices = is_body[areas > 0.2 * areas.max()] if areas.any() else is_body[:0]
    if not len(slices):
        return False
    lengths = [
        float(np.median(slices.any(axis=other).sum(axis=1))) * 2 * spacing
        for other, spacing in ((2, spacing_mm[1]), (1, spacing_mm[2]))
    ]
    length, width = lengths
    if not (MIN_HEAD_WIDTH_MM <= width <= MAX_HEAD_WIDTH_MM and length <= MAX_HEAD_LENGTH_MM):
        return False
    soft_tissue = sample[is_body & (sample > SOFT_TISSUE_HU[0]) & (sample < SOFT_TISSUE_HU[1])]
    brain = (soft_tissue >= BRAIN_HU[0]) & (soft_tissue <= BRAIN_HU[1])
    return bool(len(soft_tissue) and brain.mean() >= MIN_BRAIN_FRACTION)
