"""From the cases to a complete configuration: spacing, intensities, patch, network.

Only scans are looked at, never a label, so that labelling more does not shift the plan and nothing
of an unlabelled case's truth can enter it. What a person set stays as set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_dycon.engine.config import TrainConfig

# Voxels of a patch and filters of the first level, by what the machine can carry.
PATCH_VOXELS = {"cpu": 48**3, "mps": 80**3, "cuda": 112 * 112 * 80}
# The coarsest level has to see how a patch lies in the organ: cells of 16 voxels, as in V-Net.
FILTERS = {
    "cpu": (24, 48, 96, 128),
    "mps": (16, 32, 64, 128, 256),
    "cuda": (32, 64, 128, 256, 320),
}
# Layers at full resolution take most of a CPU's time and add the least: see benchmarks/RESULTS.md.
HALF_RESOLUTION = {"cpu": True, "mps": False, "cuda": False}
LEAST_SIDE = 32  # voxels of a patch along each axis
LEAST_CELLS = 2  # of the coarsest level, likewise: of a single one normalising leaves nothing


@dataclass(frozen=True)
class Fingerprint:
    """What the plan knows of one scan: voxels ``(D, H, W)``, spacing in mm, intensities."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    low: float  # 0.5 % quantile, the largest of the channels'
    high: float  # 99.5 % quantile, the same


def fingerprint(array: npt.NDArray[np.generic], spacing: tuple[float, float, float]) -> Fingerprint:
    """Describe a scan ``(D, H, W)`` or ``(C, D, H, W)``."""
    channels = array if array.ndim == 4 else array[None]
    low, high = np.max(
        [np.quantile(channel[::2, ::2, ::2], (0.005, 0.995)) for channel in channels], axis=0
    )
    d, h, w = channels.shape[1:]
    return Fingerprint((d, h, w), spacing, float(low), float(high))


def plan(config: TrainConfig, prints: Sequence[Fingerprint], device: str) -> TrainConfig:
    """Fill what the configuration leaves open.

    Parameters
    ----------
    config : settings of the person and the preset
    prints : one a case, labelled or not
    device : "cuda", "mps" or "cpu", decides how large patch and network may be
    """
    spacing = config.spacing or _spacing(prints)
    shapes = np.array([np.array(p.shape) * np.array(p.spacing) / np.array(spacing) for p in prints])
    config = plan_network(config, device)
    shape = np.median(shapes, axis=0)
    patch = config.patch or _patch(shape, config.stride, PATCH_VOXELS[device])
    intensity = config.intensity or ("window" if looks_like_ct(prints) else "zscore")
    window = config.window
    if intensity == "window" and window is None:
        window = (
            float(np.median([p.low for p in prints])),
            float(np.median([p.high for p in prints])),
        )
    return config.with_changes(spacing=spacing, patch=patch, intensity=intensity, window=window)


def plan_network(config: TrainConfig, device: str) -> TrainConfig:
    """Filters and resolution; filters that a person chose are levels from full resolution on.

    Raises
    ------
    ConfigError
        A patch that the person chose does not fit the network.
    """
    half = config.half_resolution
    if half is None:
        half = config.filters is None and HALF_RESOLUTION[device]
    filters = FILTERS[device]
    if half and not HALF_RESOLUTION[device]:  # the coarsest cells stay as large as they are
        filters = filters[:-1]
    elif HALF_RESOLUTION[device] and not half:
        filters = (*filters, filters[-1])
    return config.with_changes(filters=config.filters or filters, half_resolution=half)


def _spacing(prints: Sequence[Fingerprint]) -> tuple[float, float, float]:
    """Median spacing of the cases; slices much thicker than pixels are refined moderately."""
    median = np.median([p.spacing for p in prints], axis=0)
    thick = int(np.argmax(median))
    others = float(np.max(np.delete(median, thick)))
    if median[thick] > 3 * others:
        median[thick] = max(3 * others, float(np.quantile([p.spacing[thick] for p in prints], 0.1)))
    z, y, x = (round(float(v), 4) for v in median)
    return z, y, x


def _patch(shape: npt.NDArray[np.float64], stride: int, voxels: int) -> tuple[int, int, int]:
    """Largest patch of the scans' own proportions within the budget, in multiples of the stride.

    Axes along which a scan is thin get the least side, which may be more than the scan has; what is
    left of the budget is for the others.
    """
    least = max(-(-LEAST_SIDE // stride), LEAST_CELLS) * stride
    size = np.full(3, float(least))
    others = np.ones(3, bool)
    while others.any():
        left = voxels / float(least) ** int((~others).sum())
        scale = min(1.0, (left / float(np.prod(shape[others]))) ** (1 / others.sum()))
        thin = others & (shape * scale < least)
        if not thin.any():
            size[others] = shape[others] * scale
            break
        others &= ~thin
    d, h, w = (int(s // stride) * stride for s in size)
    return d, h, w


def looks_like_ct(prints: Sequence[Fingerprint]) -> bool:
    """Hounsfield units reach down to air; magnitude images are not negative.

    A CT beside other images (PET, for instance) is scaled as these are, scan by scan: the window of
    the one would wipe out the others.
    """
    return bool(np.median([p.low for p in prints]) < -400)
