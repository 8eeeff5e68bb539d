"""Schedules of a run: pure functions of progress.

``progress`` is ``t / T`` in [0, 1]. With a time limit it is measured by the clock, so that every
schedule reaches its end at any speed. Weights of unsupervised terms are scheduled over the
semi-supervised phase, see ``rescale_progress``.
"""

from __future__ import annotations

import math


def rescale_progress(progress: float, start: float) -> float:
    """Rescale progress to the part of a run after ``start``: 0 there, 1 at the end."""
    return min(max(progress - start, 0.0) / max(1.0 - start, 1e-6), 1.0)


def learning_rate_factor(progress: float, warmup_fraction: float) -> float:
    """Compute linear warm-up over ``warmup_fraction``, then polynomial decay (power 0.9)."""
    progress = min(max(progress, 0.0), 1.0)
    rise = 1.0 if warmup_fraction <= 0 else min((progress + 1e-3) / warmup_fraction, 1.0)
    return rise * math.pow(max(1.0 - progress, 1e-3), 0.9)


def ema_decay(step: int, max_decay: float = 0.99) -> float:
    """Compute min(1 - 1 / (t + 1), max_decay): first a true average, then exponential."""
    return min(1.0 - 1.0 / (step + 1), max_decay)
