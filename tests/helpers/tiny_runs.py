"""Settings of runs that take one or two seconds."""

from __future__ import annotations

from typing import Any

TINY: dict[str, Any] = {
    "device": "cpu",
    "precision": "float32",
    "batch.patch_size": [16, 16, 16],
    "network.filters": [4, 8, 8],
    "steps": 4,
    "batch.labeled_size": 1,
    "batch.unlabeled_size": 1,
    "semi_supervised.start": 0.0,
}
