"""Quality of uncertainty maps: error detection, calibration and risk-coverage.

Calibration and coverage are measured in the foreground margin (foreground of prediction or
reference, dilated by a few millimeters), since easy background voxels would make any map look
excellent. Error detection is measured over the whole image, as usually reported, and in the margin,
where it is harder. Ties count as half, as in any rank statistic, so that a constant map has AUROC
0.5 and results do not depend on the order of voxels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata, spearmanr

from napari_dycon.core.types import Array, Mask
from napari_dycon.engine.evaluation.foreground_margin import dilate_mm

Values = npt.NDArray[np.float64]

N_CALIBRATION_BINS = 15
MAX_SORTED_VOXELS = 1_000_000


def evaluate_uncertainty(
    prediction: Array,
    reference: Array,
    annotation_mask: Mask,
    uncertainty: Array,
    confidence: Array | None,
    spacing_mm: Sequence[float],
    n_classes: int,
) -> dict[str, Any]:
    """Evaluate the map of one case over its annotated voxels; all but ``auroc`` in the margin.

    Parameters
    ----------
    prediction, reference : integers (D, H, W)
    annotation_mask : (D, H, W), true in annotated voxels
    uncertainty, confidence : (D, H, W) in [0, 1]; without a confidence map it is derived
    n_classes : with background

    Returns
    -------
    ``auroc``: probability that a wrong voxel is more uncertain than a correct one, None unless
    there are both; ``auroc_foreground``: the same in the margin; ``ece``: expected calibration
    error; ``aurc``: area under the risk-coverage curve, 0 is best; ``error_rate``: fraction of
    wrong voxels, which is also the AURC of an uninformative map; ``foreground_voxels``;
    ``confidence_from``: "map" or "entropy".
    """
    margin = (
        dilate_mm((prediction != 0) | ((reference != 0) & annotation_mask), spacing_mm)
        & annotation_mask
    )
    if not margin.any():  # no foreground in either: evaluate the whole image
        margin = annotation_mask
    errors = prediction != reference
    margin_errors = errors[margin]
    margin_uncertainty = np.asarray(uncertainty[margin], np.float64)
    if confidence is None:
        margin_confidence = confidence_from_entropy(margin_uncertainty, n_classes)
    else:
        margin_confidence = np.asarray(confidence[margin], np.float64)
    return {
        "auroc": auroc(uncertainty[annotation_mask], errors[annotation_mask]),
        "auroc_foreground": auroc(margin_uncertainty, margin_errors),
        "ece": expected_calibration_error(margin_confidence, ~margin_errors),
        "aurc": aurc(margin_uncertainty, margin_errors),
        "error_rate": float(margin_errors.mean()),
        "foreground_voxels": int(margin.sum()),
        "confidence_from": "entropy" if confidence is None else "map",
    }


def confidence_from_entropy(uncertainty: Array, n_classes: int) -> Values:
    """Derive the probability of the predicted class from the normalized entropy.

    The entropy is divided by log(n_classes). Exact for two classes, where entropy and largest
    probability determine each other. With more classes, two classes are assumed to share all the
    probability; beyond log 2 nats, which two classes cannot reach, it is exp(-H), which is exact
    for k equally likely classes and never more than the true value.
    """
    entropy = np.clip(np.asarray(uncertainty, np.float64), 0.0, 1.0) * math.log(n_classes)
    # Binary entropy has no inverse in closed form: interpolate it on a grid that is fine near 1.
    p = 1.0 - 0.5 * np.linspace(0.0, 1.0, 4097) ** 3
    q = 1.0 - p
    table = -p * np.log(p) - q * np.log(np.where(q > 0, q, 1.0))
    binary_confidence = np.interp(entropy, table, p)
    return np.where(entropy <= math.log(2.0), binary_confidence, np.exp(-entropy))


def auroc(score: Values, is_positive: Mask) -> float | None:
    """Compute the area under the ROC curve, ties counted half; ``None`` without both kinds.

    Parameters
    ----------
    score, is_positive : (N,); above a million voxels, scores in [0, 1] are rounded to 65,536
        levels, which is much faster than sorting a whole scan
    """
    if len(score) > MAX_SORTED_VOXELS:
        return _auroc_from_histogram(score, is_positive)
    n_positive = int(is_positive.sum())
    n_negative = len(is_positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        return None
    ranks = np.asarray(rankdata(score), np.float64)  # ties share their average
    above = float(ranks[is_positive].sum()) - n_positive * (n_positive + 1) / 2.0
    return above / n_positive / n_negative


def _auroc_from_histogram(score: Values, is_positive: Mask) -> float | None:
    """Compute the AUROC of scores in [0, 1] from counts of each rounded score."""
    level = np.round(np.clip(score, 0.0, 1.0) * 65_535).astype(np.uint16)
    positive_counts = np.bincount(level[is_positive], minlength=65_536).astype(np.float64)
    negative_counts = np.bincount(level[~is_positive], minlength=65_536).astype(np.float64)
    if positive_counts.sum() == 0 or negative_counts.sum() == 0:
        return None
    negatives_below = np.cumsum(negative_counts) - negative_counts / 2.0  # ties count as half
    return float(
        (positive_counts * negatives_below).sum() / positive_counts.sum() / negative_counts.sum()
    )


def expected_calibration_error(
    confidence: Values, is_correct: Mask, n_bins: int = N_CALIBRATION_BINS
) -> float:
    """Compute Σ over equal bins of (n_b / N) · |accuracy_b - confidence_b|.

    Parameters
    ----------
    confidence, is_correct : (N,), N at least 1
    """
    number = np.clip((confidence * n_bins).astype(np.int64), 0, n_bins - 1)
    gap = np.bincount(number, weights=is_correct.astype(np.float64) - confidence, minlength=n_bins)
    return float(np.abs(gap).sum() / len(confidence))


def aurc(score: Values, is_error: Mask) -> float:
    """Compute the mean over k of the error rate among the k most certain voxels.

    Ties count with the expected value over their orders.

    Parameters
    ----------
    score, is_error : (N,), N at least 1
    """
    _, group, size = np.unique(score, return_inverse=True, return_counts=True)
    # In a random order of its ties, each voxel is wrong as often as its group is.
    rate = np.bincount(group, weights=is_error.astype(np.float64)) / size
    errors = np.cumsum(np.repeat(rate, size))
    return float(np.mean(errors / np.arange(1, len(errors) + 1)))


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Compute Spearman's rank correlation; ``None`` below three pairs or if either is constant."""
    if len(a) < 3 or len(set(a)) < 2 or len(set(b)) < 2:
        return None
    return float(spearmanr(a, b).statistic)
