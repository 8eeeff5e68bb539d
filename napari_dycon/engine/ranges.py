"""What settings can be at all: bounds on what memory and time are taken for.

Settings come with projects and weights from anywhere. Nothing here imports torch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from napari_dycon.errors import ConfigError

if TYPE_CHECKING:
    from napari_dycon.engine.config import TrainConfig

# What a setting can be at all; most has to stay far below. Sizes bound what memory is taken for.
RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**40),
    "steps": (1, 10**9),
    "time_limit": (0, 10**8),
    "spacing": (1e-6, 1e4),
    "patch": (1, 1024),
    "filters": (1, 1024),
    "projection_hidden": (1, 4096),
    "projection_dim": (1, 4096),
    "labeled_batch": (1, 256),
    "unlabeled_batch": (0, 256),
    "accumulation_steps": (1, 256),
    "rotate_degrees": (0, 360),
    "scale_range": (0, 0.9),
    "gamma": (0, 100),
    "fecl_negative_gamma": (0, 100),
    "fecl_teacher_weight": (0, 1000),
    "warps": (0, 10_000),
    "templates": (0, 100),
    "regions": (1, 64),
}
MAX_LEVELS = 8
MAX_PATCH_VOXELS = 512**3  # voxels
MAX_TTA_SCALES = 8


def check_ranges(config: TrainConfig) -> None:
    """Refuse what no machine could hold, before anything is made of it."""
    for name, (low, high) in RANGES.items():
        values = getattr(config, name)
        for value in values if isinstance(values, tuple) else (values,):
            if value is not None and not low <= value <= high:
                raise ConfigError(
                    f"Setting {name} is {_format_value(value)}; expected {low:,} to {high:,}."
                )
    if config.filters is not None and len(config.filters) > MAX_LEVELS:
        raise ConfigError(
            f"Setting filters has {len(config.filters)} levels; expected {MAX_LEVELS} at most."
        )
    if config.patch is not None and math.prod(config.patch) > MAX_PATCH_VOXELS:
        size = " × ".join(map(str, config.patch))
        raise ConfigError(f"Patch {size} has more than {MAX_PATCH_VOXELS:,} voxels, the most it can be.")
    if len(config.test_scales) > MAX_TTA_SCALES:
        raise ConfigError(
            f"Setting test_scales has {len(config.test_scales)} sizes; expected {MAX_TTA_SCALES} at "
            "most."
        )
    if config.window is not None and config.window[0] > config.window[1]:
        raise ConfigError(
            f"Setting window is {config.window}; expected its lower end first, then its upper one."
        )


def _format_value(value: float) -> str:
    """A number that may have a thousand digits, in a few."""
    return str(value) if abs(value) < 10**12 else "a number of more than 12 digits"
