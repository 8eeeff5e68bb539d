"""Ranking of cases to label, by uncertainty and novelty.

A greedy k-center selection (core-set, Sener and Savarese 2018) with uncertainty: cases are selected
one after the other by the sum of two ranks, that of the uncertainty and that of the distance to the
nearest labeled or already selected case.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

NOVELTY_WEIGHT = 1.0  # weight of the novelty rank relative to the uncertainty rank
MAX_GREEDY_CASES = 100  # the others are sorted once, by their distance to these
BLOCK_CASES = 256  # labeled cases compared at a time


def rank_candidates(
    uncertainty: npt.NDArray[np.float64],
    features: npt.NDArray[np.float64] | None,
    labeled_features: npt.NDArray[np.float64],
) -> tuple[list[int], npt.NDArray[np.float64]]:
    """Return the labeling order and the novelty rank of each case.

    The first ``MAX_GREEDY_CASES`` are selected greedily; the rest are sorted once, so that the time
    is not quadratic in the number of cases.

    Parameters
    ----------
    uncertainty : (N,)
    features : (N, F), or ``None`` if some are missing
    labeled_features : (L, F), of the labeled cases
    """
    count = len(uncertainty)
    uncertainty_ranks = compute_ranks(uncertainty)
    novelty = np.zeros(count)
    if features is None:
        return np.argsort(-uncertainty, kind="stable").tolist(), novelty
    all_features = np.concatenate([features, labeled_features])
    scale = all_features.std(axis=0) + 1e-9
    scaled, scaled_labeled = features / scale, labeled_features / scale
    nearest = np.full(count, np.inf)
    for start in range(0, len(scaled_labeled), BLOCK_CASES):
        distances = cdist(scaled, scaled_labeled[start : start + BLOCK_CASES])
        nearest = np.minimum(nearest, distances.min(axis=1))
    if np.isfinite(nearest).all():
        novelty = compute_ranks(nearest)
    is_remaining, order = np.ones(count, dtype=bool), []
    for _ in range(min(count, MAX_GREEDY_CASES)):
        ranking = _sort_by_rank_sum(uncertainty_ranks, nearest, np.flatnonzero(is_remaining))
        order.append(int(ranking[0]))
        is_remaining[order[-1]] = False
        nearest = np.minimum(nearest, np.linalg.norm(scaled - scaled[order[-1]], axis=1))
    order += _sort_by_rank_sum(uncertainty_ranks, nearest, np.flatnonzero(is_remaining)).tolist()
    return order, novelty


def _sort_by_rank_sum(
    uncertainty_ranks: npt.NDArray[np.float64],
    nearest: npt.NDArray[np.float64],
    remaining: npt.NDArray[np.intp],
) -> npt.NDArray[np.intp]:
    """Sort the remaining cases by the sum of both ranks; ties are broken by uncertainty."""
    novelty_ranks = np.zeros(len(remaining))
    if np.isfinite(nearest[remaining]).all():
        novelty_ranks = compute_ranks(nearest[remaining])
    rank_sums = uncertainty_ranks[remaining] + NOVELTY_WEIGHT * novelty_ranks
    return remaining[np.lexsort((remaining, -uncertainty_ranks[remaining], -rank_sums))]


def compute_ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Compute ranks scaled from 0 for the smallest to 1 for the largest value."""
    if len(values) < 2:
        return np.ones(len(values))
    ranks: npt.NDArray[np.float64] = np.argsort(np.argsort(values)) / (len(values) - 1)
    return ranks
