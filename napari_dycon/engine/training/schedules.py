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


def adaptive_beta(progress: float, beta_max: float = 5.0, beta_min: float = 0.5) -> float:
    """β(t) = β_max (β_min / β_max)^(t/T), from exploring to exploiting (DyCON, §3.1)."""
    return beta_max * math.pow(beta_min / beta_max, min(max(progress, 0.0), 1.0))


def sigmoid_rampup(progress: float, rampup_fraction: float, weight: float = 0.1) -> float:
    """w(t) = weight · exp(-5 (1 - min(t / T_ramp, 1))²), the Gaussian ramp of Mean Teacher.

    ``ramp`` is T_ramp / T; it never reaches beyond the run's length.
    """
    rampup_fraction = min(max(rampup_fraction, 1e-6), 1.0)
    return weight * math.exp(-5.0 * (1.0 - min(max(progress, 0.0) / rampup_fraction, 1.0)) ** 2)


def teacher_threshold(progress: float) -> float:
    """θ(t) = 0.3 + 0.2 · exp(-5 (1 - min(t/T, 1))²), the similarity of teacher's pairs in FeCL."""
    return 0.3 + sigmoid_rampup(progress, 1.0, 0.2)


def learning_rate_factor(progress: float, warmup_fraction: float) -> float:
    """Linear warm-up over the share ``warmup``, then polynomial decay (power 0.9) to nearly 0."""
    progress = min(max(progress, 0.0), 1.0)
    rise = 1.0 if warmup_fraction <= 0 else min((progress + 1e-3) / warmup_fraction, 1.0)
    return rise * math.pow(max(1.0 - progress, 1e-3), 0.9)


def ema_decay(step: int, max_decay: float = 0.99) -> float:
    """min(1 - 1 / (t + 1), limit): a true average at first, then exponential (Mean Teacher)."""
    return min(1.0 - 1.0 / (step + 1), max_decay)
