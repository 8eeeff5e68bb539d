"""Metrics against brute-force references on tiny arrays, and the rules for empty structures."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from napari_dycon.engine.evaluation.segmentation_metrics import (
    dice_per_class,
    evaluate_case,
    summarize,
)
from napari_dycon.errors import GeometryError, LabelError

SPACING = (2.0, 1.0, 0.5)


def make_blobs(seed: int, shape=(9, 10, 11), classes=(1, 2)) -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping label maps that touch the border of the volume."""
    rng = np.random.default_rng(seed)
    maps = []
    for _ in range(2):
        label = np.zeros(shape, np.uint8)
        for value in classes:
            start = rng.integers(0, 4, 3)
            stop = start + rng.integers(3, 6, 3)
            label[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = value
        maps.append(label)
    return maps[0], maps[1]


def find_surface_brute_force(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Positions in mm of voxels with a face towards outside (or the border of the volume)."""
    points = []
    for voxel in np.argwhere(mask):
        for axis in range(3):
            for step in (-1, 1):
                other = voxel.copy()
                other[axis] += step
                outside = not 0 <= other[axis] < mask.shape[axis]
                if outside or not mask[tuple(other)]:
                    points.append(tuple(voxel * np.array(spacing)))
    return np.array(sorted(set(points)))


def compute_distances_brute_force(
    a: np.ndarray, b: np.ndarray, spacing
) -> tuple[np.ndarray, np.ndarray]:
    pa, pb = find_surface_brute_force(a, spacing), find_surface_brute_force(b, spacing)
    table = np.linalg.norm(pa[:, None] - pb[None], axis=-1)
    return table.min(axis=1), table.min(axis=0)


@pytest.mark.parametrize("seed", range(5))
def test_scores_agree_with_a_brute_force_reference(seed):
    prediction, reference = make_blobs(seed)
    result = evaluate_case(prediction, reference, SPACING, [1, 2])
    dices = []
    for value in (1, 2):
        a, b = prediction == value, reference == value
        scores = result["classes"][str(value)]
        common = sum(x and y for x, y in zip(a.ravel(), b.ravel(), strict=True))
        dices.append(2 * common / (a.sum() + b.sum()))
        assert scores["dice"] == pytest.approx(dices[-1])
        assert scores["jaccard"] == pytest.approx(common / (a | b).sum())
        there, back = compute_distances_brute_force(a, b, SPACING)
        hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
        assert scores["hd95_mm"] == pytest.approx(hd95, rel=1e-5)
        asd = np.concatenate([there, back]).mean()
        assert scores["asd_mm"] == pytest.approx(asd, rel=1e-5, abs=1e-6)
        assert scores["volume_ml"] == pytest.approx(a.sum() / 1000)
        assert scores["reference_volume_ml"] == pytest.approx(b.sum() / 1000)
        assert scores["missed"] is False
    assert result["mean_dice"] == pytest.approx(np.mean(dices))
    assert "uncertainty" not in result


def test_spacing_applies_to_its_own_axis():
    reference = np.zeros((8, 8, 8), np.uint8)
    reference[2, 3, 4] = 1
    for axis, step in enumerate(SPACING):
        prediction = np.roll(reference, 2, axis)
        scores = evaluate_case(prediction, reference, SPACING, [1])["classes"]["1"]
        assert scores["hd95_mm"] == pytest.approx(2 * step)
        assert scores["asd_mm"] == pytest.approx(2 * step)


def test_a_perfect_prediction_has_perfect_scores():
    _, reference = make_blobs(0)
    scores = evaluate_case(reference, reference, SPACING, [1])["classes"]["1"]
    assert (scores["dice"], scores["jaccard"], scores["hd95_mm"], scores["asd_mm"]) == (1, 1, 0, 0)


@pytest.mark.parametrize("missing", ["prediction", "reference"])
def test_missed_and_spurious_structures_cost_the_image_diagonal(missing):
    full, empty = np.zeros((3, 4, 12), np.uint8), np.zeros((3, 4, 12), np.uint8)
    full[1, 1, 1] = 1
    pair = (empty, full) if missing == "prediction" else (full, empty)
    scores = evaluate_case(*pair, SPACING, [1])["classes"]["1"]
    assert scores["missed"] is True
    assert (scores["dice"], scores["jaccard"]) == (0, 0)
    diagonal = math.sqrt(6.0**2 + 4.0**2 + 6.0**2)
    assert scores["hd95_mm"] == scores["asd_mm"] == pytest.approx(diagonal)


def test_a_structure_absent_from_both_scores_as_correct():
    empty = np.zeros((3, 4, 5), np.uint8)
    scores = evaluate_case(empty, empty, SPACING, [7])["classes"]["7"]
    assert scores["missed"] is False
    assert (scores["dice"], scores["jaccard"], scores["hd95_mm"], scores["asd_mm"]) == (1, 1, 0, 0)


def test_voxels_without_annotation_do_not_count():
    prediction, reference = make_blobs(1)
    hidden = np.zeros(reference.shape, bool)
    hidden[:4] = True
    sparse = np.where(hidden, 255, reference).astype(np.uint8)
    noisy = np.where(hidden, 2, prediction)
    expected = evaluate_case(
        np.where(hidden, 0, prediction), np.where(hidden, 0, reference), SPACING, [1, 2]
    )
    assert evaluate_case(noisy, sparse, SPACING, [1, 2]) == expected
    dice = {int(v): s["dice"] for v, s in expected["classes"].items()}
    assert dice_per_class(noisy, sparse, [1, 2]) == pytest.approx(dice)


def test_unannotated_references_are_refused_or_skipped_and_never_perfect():
    blank = np.full((3, 4, 5), 255, np.uint8)
    with pytest.raises(LabelError, match="no annotated voxel"):
        evaluate_case(np.zeros_like(blank), blank, SPACING, [1])
    assert dice_per_class(np.zeros_like(blank), blank, [1]) == {}


def test_wrong_shapes_and_missing_classes_are_reported():
    with pytest.raises(GeometryError, match=r"\(3, 4, 5\) and the reference \(3, 4, 6\)"):
        evaluate_case(np.zeros((3, 4, 5)), np.zeros((3, 4, 6)), SPACING, [1])
    zeros = np.zeros((3, 4, 5))
    with pytest.raises(GeometryError, match="uncertainty map"):
        evaluate_case(zeros, zeros, SPACING, [1], uncertainty=np.zeros((3, 4, 6)))
    with pytest.raises(LabelError, match="no class"):
        evaluate_case(np.zeros((3, 4, 5)), np.zeros((3, 4, 5)), SPACING, [])


def test_the_summary_keeps_missed_cases_in_its_means():
    prediction, reference = make_blobs(2, classes=(1,))
    cases = {
        "good": evaluate_case(reference, reference, SPACING, [1]),
        "fair": evaluate_case(prediction, reference, SPACING, [1]),
        "missed": evaluate_case(np.zeros_like(reference), reference, SPACING, [1]),
    }
    summary = summarize(cases)
    dices = [1.0, cases["fair"]["mean_dice"], 0.0]
    assert summary["cases"] == 3
    assert summary["mean_dice"] == pytest.approx(np.mean(dices))
    assert summary["sd_dice"] == pytest.approx(np.std(dices, ddof=1))
    assert summary["classes"]["1"]["missed"] == 1
    hd95 = [case["classes"]["1"]["hd95_mm"] for case in cases.values()]
    assert summary["classes"]["1"]["hd95_mm"]["mean"] == pytest.approx(np.mean(hd95))
    assert "uncertainty" not in summary
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_the_summary_ranks_cases_by_their_uncertainty():
    _, reference = make_blobs(3, classes=(1,))
    shifted = [np.roll(reference, shift, axis=2) for shift in (0, 1, 2, 3)]
    cases = {
        str(shift): evaluate_case(
            prediction,
            reference,
            SPACING,
            [1],
            uncertainty=np.full(reference.shape, 0.1 + 0.1 * shift),
        )
        for shift, prediction in enumerate(shifted)
    }
    summary = summarize(cases)["uncertainty"]
    assert summary["cases"] == 4
    assert summary["rank_correlation"] == pytest.approx(1.0)
    assert summary["auroc"] == pytest.approx(0.5)  # a constant map knows nothing about places
    assert summary["confidence_from"] == ["entropy"]
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    alone = summarize({"a": cases["0"]})
    assert alone["uncertainty"]["rank_correlation"] is None
    assert alone["sd_dice"] == 0


def test_a_summary_of_no_cases_is_empty():
    assert summarize({})["cases"] == 0
