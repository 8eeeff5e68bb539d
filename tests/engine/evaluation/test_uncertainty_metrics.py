"""Uncertainty metrics against their definitions over pairs, bins and ranks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from napari_dycon.engine.evaluation.foreground_margin import dilate_mm, mean_foreground_uncertainty
from napari_dycon.engine.evaluation.segmentation_metrics import evaluate_case
from napari_dycon.engine.evaluation.uncertainty_metrics import (
    aurc,
    auroc,
    confidence_from_entropy,
    expected_calibration_error,
    spearman,
)


def test_auroc_counts_pairs_with_ties_as_half():
    rng = np.random.default_rng(0)
    score, positive = rng.integers(0, 6, 60) / 5.0, rng.random(60) < 0.3
    wins = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a, b in itertools.product(score[positive], score[~positive])
    ]
    assert auroc(score, positive) == pytest.approx(np.mean(wins))
    assert auroc(score, np.zeros(60, bool)) is None
    assert auroc(score, np.ones(60, bool)) is None


def test_auroc_of_a_whole_scan_agrees_with_sorting(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(2)
    positive = rng.random(5000) < 0.02
    score = np.clip(rng.random(5000) * 0.3 + positive * rng.random(5000), 0, 1)
    score[:2000] = 0.0
    sorted_ = auroc(score, positive)
    monkeypatch.setattr("napari_dycon.engine.evaluation.uncertainty_metrics.MAX_SORTED_VOXELS", 100)
    assert auroc(score, positive) == pytest.approx(sorted_, abs=1e-4)
    assert auroc(score, np.zeros(5000, bool)) is None


def test_calibration_error_uses_fifteen_bins():
    rng = np.random.default_rng(1)
    confidence, right = rng.random(300), rng.random(300) < 0.7
    confidence[:3] = 1.0
    total = 0.0
    for b in range(15):
        upper = b / 15 + 1 / 15 if b < 14 else 1.1
        inside = (confidence >= b / 15) & (confidence < upper)
        if inside.any():
            gap = abs(right[inside].mean() - confidence[inside].mean())
            total += inside.mean() * gap
    assert expected_calibration_error(confidence, right) == pytest.approx(total)
    assert expected_calibration_error(np.ones(4), np.ones(4, bool)) == 0
    assert expected_calibration_error(np.ones(4), np.array([True, True, False, False])) == 0.5


def test_aurc_is_the_mean_over_coverages_and_over_orders_of_ties():
    score = np.array([0.1, 0.2, 0.2, 0.2, 0.9])
    wrong = np.array([False, True, False, False, True])
    areas = []
    for order in itertools.permutations([1, 2, 3]):
        flags = wrong[[0, *order, 4]]
        areas.append(np.mean([flags[: k + 1].mean() for k in range(5)]))
    assert aurc(score, wrong) == pytest.approx(np.mean(areas))
    assert aurc(np.zeros(5), wrong) == pytest.approx(wrong.mean())


@pytest.mark.parametrize("p", [0.5, 0.6, 0.75, 0.9, 0.99, 0.9999, 1.0])
def test_confidence_of_two_classes_is_recovered_from_entropy(p):
    entropy = -p * math.log(p) - ((1 - p) * math.log(1 - p) if p < 1 else 0.0)
    found = confidence_from_entropy(np.array([entropy / math.log(2)]), 2)
    assert found[0] == pytest.approx(p, abs=1e-4)


def test_confidence_of_many_classes_is_exact_for_equal_shares():
    for n, k in ((3, 2), (3, 3), (5, 4)):
        found = confidence_from_entropy(np.array([math.log(k) / math.log(n)]), n)
        assert found[0] == pytest.approx(1 / k, abs=1e-4)


def test_rank_correlation_has_known_values():
    assert spearman([1, 2, 3, 4], [1, 4, 9, 100]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [3, 2, 1, 0]) == pytest.approx(-1)
    # Average ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4.
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(math.sqrt(0.9))
    assert spearman([1, 1, 1], [1, 2, 3]) is None
    assert spearman([1, 2], [1, 2]) is None


@pytest.mark.parametrize("seed", range(5))
def test_rank_statistics_agree_with_their_definition(seed):
    """Of each value: one more than those below it, and half of the others that are equal."""

    def ranks(values):
        below = (values[:, None] > values).sum(axis=1)
        equal = (values[:, None] == values).sum(axis=1)
        return 1.0 + below + (equal - 1) / 2.0

    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 9, 40) / 8.0, rng.random(40).round(1)
    wanted = np.corrcoef(ranks(a), ranks(b))[0, 1]
    assert spearman(a.tolist(), b.tolist()) == pytest.approx(wanted, rel=1e-14, abs=1e-15)
    positive = rng.random(40) < 0.4
    n = int(positive.sum())
    area = (ranks(a)[positive].sum() - n * (n + 1) / 2.0) / n / (40 - n)
    assert auroc(a, positive) == area


def test_the_margin_is_three_millimeters_along_each_axis():
    mask = np.zeros((11, 11, 11), bool)
    mask[5, 5, 5] = True
    band = dilate_mm(mask, (6.0, 1.0, 1.5))
    # At least one voxel, 3 mm / 1 mm and 3 mm / 1.5 mm.
    assert [int(n) for n in np.argwhere(band).min(axis=0)] == [4, 2, 3]
    assert [int(n) for n in np.argwhere(band).max(axis=0)] == [6, 8, 7]
    assert band.sum() == 3 * 7 * 5


def test_a_map_of_the_errors_scores_well_and_its_inverse_badly():
    reference = np.zeros((12, 12, 12), np.uint8)
    reference[4:8, 4:8, 4:8] = 1
    prediction = np.roll(reference, 1, axis=0)
    wrong = prediction != reference

    def judge(uncertainty, **kwargs):
        return evaluate_case(
            prediction, reference, (1.5, 1.5, 1.5), [1], uncertainty=uncertainty, **kwargs
        )["uncertainty"]

    good, bad = judge(wrong.astype(float)), judge((~wrong).astype(float))
    assert good["auroc"] == 1
    assert bad["auroc"] == 0
    assert good["aurc"] < good["error_rate"] < bad["aurc"]
    band = dilate_mm((prediction > 0) | (reference > 0), (1.5, 1.5, 1.5))
    assert good["foreground_voxels"] == band.sum()
    assert good["error_rate"] == pytest.approx(wrong[band].mean())
    # Certain and right, or at 0.5 and wrong: the gap is 0.5 where wrong.
    assert good["ece"] == pytest.approx(0.5 * wrong[band].mean(), abs=1e-3)
    assert good["confidence_from"] == "entropy"
    exact = judge(wrong.astype(float), confidence=(~wrong).astype(float))
    assert exact["ece"] == pytest.approx(0)
    assert exact["confidence_from"] == "map"


def test_the_case_score_needs_no_reference():
    prediction = np.zeros((9, 9, 9), np.uint8)
    uncertainty = np.random.default_rng(2).random((9, 9, 9)).astype(np.float32)
    assert mean_foreground_uncertainty(prediction, uncertainty, (3.0, 3.0, 3.0)) == pytest.approx(
        uncertainty.mean()
    )
    prediction[4, 4, 4] = 2
    near = uncertainty[3:6, 3:6, 3:6].mean()
    assert mean_foreground_uncertainty(prediction, uncertainty, (3.0, 3.0, 3.0)) == pytest.approx(
        near
    )


def test_unannotated_voxels_are_excluded_from_the_margin():
    rng = np.random.default_rng(3)
    reference = np.zeros((8, 8, 8), np.uint8)
    reference[2:6, 2:6, 2:6] = 1
    prediction = np.roll(reference, 1, axis=1)
    uncertainty = rng.random((8, 8, 8))
    sparse = reference.copy()
    sparse[4:] = 255
    scribbled = prediction.copy()
    scribbled[4:] = rng.integers(0, 2, (4, 8, 8))
    scribbled[4] = prediction[4]
    found = evaluate_case(prediction, sparse, (9, 9, 9), [1], uncertainty=uncertainty)[
        "uncertainty"
    ]
    again = evaluate_case(scribbled, sparse, (9, 9, 9), [1], uncertainty=uncertainty)["uncertainty"]
    assert {k: v for k, v in found.items() if k != "score"} == {
        k: v for k, v in again.items() if k != "score"
    }
    assert found["foreground_voxels"] <= 4 * 64
