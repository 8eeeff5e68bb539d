"""Settings of runs that take a second or two."""

from __future__ import annotations

from typing import Any

TINY: dict[str, Any] = {
    "device": "cpu",
    "precision": "float32",
    "patch": [16, 16, 16],
    "filters": [4, 8, 8],
    "steps": 4,
    "labeled_batch": 1,
    "unlabeled_batch": 1,
    "unlabeled_start": 0.0,
}
