"""How weights change over a run: pure functions of progress.

``progress`` is ``t / T`` in [0, 1]. A run limited by time measures it by the clock, so that every
schedule reaches its end however fast the machine is. What weighs the unlabeled part runs over the
steps that have one, see ``rescale_progress``.
"""

from __future__ import annotations

import math


def rescale_progress(progress: float, start: float) -> float:
    """Progress of the part of a run that begins at the share ``start``: 0 there, 1 at the end."""
    return min(max(progress - start, 0.0) / max(1.0 - start, 1e-6), 1.0)


def learning_rate_factor(progress: float, warmup_fraction: float) -> float:
    """Linear warm-up over the share ``warmup``, then polynomial decay (power 0.9) to nearly 0."""
    progress = min(max(progress, 0.0), 1.0)
    rise = 1.0 if warmup_fraction <= 0 else min((progress + 1e-3) / warmup_fraction, 1.0)
    return rise * math.pow(max(1.0 - progress, 1e-3), 0.9)


def ema_decay(step: int, max_decay: float = 0.99) -> float:
    """min(1 - 1 / (t + 1), limit): a true average at first, then exponential (Mean Teacher)."""
    return min(1.0 - 1.0 / (step + 1), max_decay)
