"""Schedules of loss weights: pure functions of progress.

``progress`` is ``t / T`` in [0, 1] of the semi-supervised phase.
"""

from __future__ import annotations

import math


def adaptive_beta(progress: float, beta_max: float = 5.0, beta_min: float = 0.5) -> float:
    """Compute β(t) = β_max (β_min / β_max)^(t/T) (DyCON, §3.1)."""
    return beta_max * math.pow(beta_min / beta_max, min(max(progress, 0.0), 1.0))


def sigmoid_rampup(progress: float, rampup_fraction: float, weight: float = 0.1) -> float:
    """Compute w(t) = weight · exp(-5 (1 - min(t / T_ramp, 1))²) (Mean Teacher).

    ``rampup_fraction`` is T_ramp / T, limited to 1.
    """
    rampup_fraction = min(max(rampup_fraction, 1e-6), 1.0)
    return weight * math.exp(-5.0 * (1.0 - min(max(progress, 0.0) / rampup_fraction, 1.0)) ** 2)


def teacher_threshold(progress: float) -> float:
    """Compute θ(t) = 0.3 + 0.2 · exp(-5 (1 - min(t/T, 1))²), FeCL's teacher threshold."""
    return 0.3 + sigmoid_rampup(progress, 1.0, 0.2)
