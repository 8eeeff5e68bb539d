"""Planning of spacing, intensities, patch and network from the scans.

Labels are never read, so that further labels do not change the plan and labels of unlabeled cases
cannot influence it. Settings that the user has made are kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field, StrictInt

from napari_dycon.engine.config import TrainConfig
from napari_dycon.io.volume import intensity_range

# Voxels of a patch and filters of the first level, by device.
PATCH_VOXELS = {"cpu": 48**3, "mps": 80**3, "cuda": 112 * 112 * 80}
# The coarsest level needs a large receptive field: it is downsampled by 16, as in V-Net.
FILTERS = {
    "cpu": (24, 48, 96, 128),
    "mps": (16, 32, 64, 128, 256),
    "cuda": (32, 64, 128, 256, 320),
}
# Layers at full resolution take most of the time on a CPU and gain least: see benchmarks/NOTES.md.
HALF_RESOLUTION = {"cpu": True, "mps": False, "cuda": False}
# With less free memory, a GPU gets fewer filters and smaller patches.
SMALL_CARD_BYTES = 10 * 2**30
SMALL_CARD_FILTERS = (16, 32, 64, 128, 256)
CARD_FRACTION = 0.8  # of the free GPU memory that a step may take
SPLIT_BELOW_VOXELS = 64**3  # the batch is split before patches become smaller than this
# Bytes that a step keeps for each voxel of a patch, measured as peak memory of float32 steps on a
# CPU for 48^3 and 64^3 patches, with and without half resolution, 2 and 8 classes, 1 and 4
# channels; the estimate was 0.88 to 1.09 of the measured peak. A voxel of a coarser level counts as
# its fraction of a voxel at full resolution.
BYTES_PER_FILTER, BYTES_PER_FULL_RES_FILTER, BYTES_PER_CLASS, BYTES_PER_CHANNEL = 46, 21, 28, 7
CHECKPOINTED_FRACTION = 0.7  # of these bytes with activation checkpointing; measured: 0.61 to 0.80
FULL_RES_FILTERS = 8  # as in network.py, which imports torch
MIN_PATCH_SIDE = 32  # voxels of a patch along each axis, or the side of the scans if less
MIN_FEATURE_SIDE = 2  # of the coarsest level; normalizing a single location gives zeros


MAX_SIDE_VOXELS = 10**6  # along a side of a scan
SideVoxels = Annotated[StrictInt, Field(ge=1, le=MAX_SIDE_VOXELS)]
SpacingMm = Annotated[float, Field(strict=True, ge=1e-6, le=1e4)]
Intensity = Annotated[float, Field(strict=True, ge=-1e30, le=1e30)]


@dataclass(frozen=True)
class Fingerprint:
    """Properties of one scan for planning: voxels ``(D, H, W)``, spacing in mm, intensities."""

    shape: tuple[SideVoxels, SideVoxels, SideVoxels]
    spacing: tuple[SpacingMm, SpacingMm, SpacingMm]
    low: Intensity  # 0.5 % quantile, maximum over the channels
    high: Intensity  # 99.5 % quantile, the same


def compute_fingerprint(
    array: npt.NDArray[np.generic], spacing: tuple[float, float, float]
) -> Fingerprint:
    """Compute the fingerprint of a scan ``(D, H, W)`` or ``(C, D, H, W)``."""
    channels = array if array.ndim == 4 else array[None]
    low, high = np.max([intensity_range(channel[::2, ::2, ::2]) for channel in channels], axis=0)
    d, h, w = channels.shape[1:]
    return Fingerprint((d, h, w), spacing, float(low), float(high))


def plan_training(
    config: TrainConfig,
    fingerprints: Sequence[Fingerprint],
    device: str,
    *,
    card_bytes: int | None = None,
    channels: int = 1,
    classes: int = 2,
) -> TrainConfig:
    """Complete the fields of a configuration that are ``None``.

    Parameters
    ----------
    config : settings of the user and the preset
    fingerprints : one per case, labeled or not
    device : "cuda", "mps" or "cpu"; determines the size of patch and network
    card_bytes : free GPU memory, if known
    channels, classes : numbers of the network; classes include the background
    """
    spacing = config.preprocessing.spacing or _plan_spacing(fingerprints)
    shapes = np.array(
        [np.array(p.shape) * np.array(p.spacing) / np.array(spacing) for p in fingerprints]
    )
    config = plan_network(config, device, card_bytes=card_bytes)
    shape = np.median(shapes, axis=0)
    voxels = PATCH_VOXELS[device]
    if card_bytes is not None and config.batch.patch_size is None:
        min_voxels = min(SPLIT_BELOW_VOXELS, voxels, math.prod(shape.tolist()))
        config, max_voxels = _fit_to_card(config, card_bytes, channels, classes, min_voxels)
        voxels = min(voxels, max_voxels)
    patch = config.batch.patch_size or _plan_patch(shape, config.network.stride, voxels)
    if (
        config.network.norm != "group" and max(patch) <= config.network.stride
    ):  # which need more than one location
        patch = (compute_min_patch_side(config.network.stride),) * 3
    intensity = config.preprocessing.normalization or (
        "clip" if is_probably_ct(fingerprints) else "zscore"
    )
    window = config.preprocessing.intensity_window
    if intensity == "clip" and window is None:
        window = (
            float(np.median([p.low for p in fingerprints])),
            float(np.median([p.high for p in fingerprints])),
        )
    return config.with_changes(
        {
            "preprocessing.spacing": spacing,
            "batch.patch_size": patch,
            "preprocessing.normalization": intensity,
            "preprocessing.intensity_window": window,
        }
    )


def plan_network(config: TrainConfig, device: str, *, card_bytes: int | None = None) -> TrainConfig:
    """Plan filters and resolution; filters chosen by the user start at full resolution.

    Raises
    ------
    ConfigError
        A patch chosen by the user does not fit the network.
    """
    half = config.network.half_resolution
    if half is None:
        half = config.network.filters is None and HALF_RESOLUTION[device]
    filters = FILTERS[device]
    if card_bytes is not None and card_bytes < SMALL_CARD_BYTES:
        filters = SMALL_CARD_FILTERS
    if half and not HALF_RESOLUTION[device]:  # the total downsampling stays the same
        filters = filters[:-1]
    elif HALF_RESOLUTION[device] and not half:
        filters = (*filters, filters[-1])
    return config.with_changes(
        {"network.filters": config.network.filters or filters, "network.half_resolution": half}
    )


def _plan_spacing(fingerprints: Sequence[Fingerprint]) -> tuple[float, float, float]:
    """Plan the median spacing; slices much thicker than pixels are refined moderately."""
    median = np.median([p.spacing for p in fingerprints], axis=0)
    thick_axis = int(np.argmax(median))
    in_plane = float(np.max(np.delete(median, thick_axis)))
    if median[thick_axis] > 3 * in_plane:
        median[thick_axis] = max(
            3 * in_plane, float(np.quantile([p.spacing[thick_axis] for p in fingerprints], 0.1))
        )
    z, y, x = (round(float(v), 4) for v in median)
    return z, y, x


def _plan_patch(
    shape: npt.NDArray[np.float64], stride: int, max_voxels: int
) -> tuple[int, int, int]:
    """Plan the largest patch with the scans' proportions within the budget.

    Sides are multiples of the stride. Axes along which scans are thin get the minimum side or the
    side of the scans; the rest of the budget is for the other axes.
    """
    min_side = compute_min_patch_side(stride)
    size = np.minimum(np.ceil(np.round(shape, 3)).clip(1), min_side)
    is_free = shape >= min_side
    while is_free.any():
        free_voxels = max_voxels / float(np.prod(size[~is_free]))
        scale = min(1.0, (free_voxels / float(np.prod(shape[is_free]))) ** (1 / is_free.sum()))
        is_thin = is_free & (shape * scale < min_side)
        if not is_thin.any():
            size[is_free] = shape[is_free] * scale
            break
        is_free &= ~is_thin
    d, h, w = (int(s if s < min_side else s // stride * stride) for s in size)
    return d, h, w


def compute_min_patch_side(stride: int) -> int:
    """Compute the minimum side of a patch in voxels, for scans that are as large."""
    return max(-(-MIN_PATCH_SIDE // stride), MIN_FEATURE_SIDE) * stride


def estimate_voxel_bytes(config: TrainConfig, *, channels: int, classes: int) -> float:
    """Estimate the bytes that a step keeps per voxel of a patch; filters must be planned."""
    assert config.network.filters is not None
    half = bool(config.network.half_resolution)
    filters = sum(
        count * 0.125 ** (level + half) for level, count in enumerate(config.network.filters)
    )
    full_res_filters = FULL_RES_FILTERS * half
    stored = float(
        BYTES_PER_FILTER * filters
        + BYTES_PER_FULL_RES_FILTER * full_res_filters
        + BYTES_PER_CLASS * classes
        + BYTES_PER_CHANNEL * channels
    )
    return stored * (CHECKPOINTED_FRACTION if config.batch.activation_checkpointing else 1.0)


def estimate_patch_bytes(config: TrainConfig, *, channels: int, classes: int) -> int:
    """Estimate the bytes that a step keeps per patch; patch and filters must be planned."""
    assert config.batch.patch_size is not None
    voxel = estimate_voxel_bytes(config, channels=channels, classes=classes)
    return math.ceil(voxel * math.prod(config.batch.patch_size))


def reduce_batch_memory(config: TrainConfig) -> TrainConfig | None:
    """Return settings that take less memory for the same patches, ``None`` if there are none.

    The batch is first split into more micro-batches, which costs no time, then activation
    checkpointing is used, which takes a quarter longer.
    """
    common_divisor = math.gcd(config.batch.labeled_size, config.batch.unlabeled_size)
    for parts in range(config.batch.accumulation_steps + 1, common_divisor + 1):
        if common_divisor % parts == 0:
            return config.with_changes({"batch.accumulation_steps": parts})
    if config.batch.activation_checkpointing or config.network.norm == "batch":
        return None
    return config.with_changes({"batch.activation_checkpointing": True})


def _fit_to_card(
    config: TrainConfig, card_bytes: int, channels: int, classes: int, min_voxels: float
) -> tuple[TrainConfig, int]:
    """Return settings that reduce memory, and the voxels of a patch that fit on a GPU with them.

    Parameters
    ----------
    min_voxels : voxels of a patch below which memory is reduced
    """
    n_patches = config.batch.labeled_size + config.batch.unlabeled_size
    while True:
        voxel_bytes = estimate_voxel_bytes(config, channels=channels, classes=classes)
        parts = config.batch.accumulation_steps
        voxels = int(CARD_FRACTION * card_bytes * parts / (n_patches * voxel_bytes))
        reduced = reduce_batch_memory(config) if voxels < min_voxels else None
        if reduced is None:
            return config, voxels
        config = reduced


def is_probably_ct(fingerprints: Sequence[Fingerprint]) -> bool:
    """Check whether intensities are Hounsfield units: these reach down to air.

    Magnitude images are not negative. A CT with other channels (PET, for instance) is scaled like
    those, scan by scan, because an intensity window of the CT would not suit the others.
    """
    return bool(np.median([p.low for p in fingerprints]) < -400)
