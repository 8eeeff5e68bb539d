"""Segmentation metrics: overlap, surface distances, volumes, and quality of uncertainty.

No metric is NaN, and none is silently left out of a mean. A structure that is in only one of
prediction and reference scores Dice 0 and the image's diagonal as its distances; one that is in
neither scores Dice 1 and distance 0. Voxels whose reference is 255, "not annotated", do not count.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from napari_dycon.core.boxes import bounding_box
from napari_dycon.core.types import UNANNOTATED, Array, Mask
from napari_dycon.engine.evaluation.foreground_margin import mean_foreground_uncertainty
from napari_dycon.engine.evaluation.uncertainty_metrics import evaluate_uncertainty, spearman
from napari_dycon.errors import GeometryError, LabelError

SEGMENTATION_METRICS = ("dice", "jaccard", "hd95_mm", "asd_mm", "volume_ml", "reference_volume_ml")
UNCERTAINTY_METRICS = ("auroc", "auroc_foreground", "ece", "aurc", "error_rate")


@dataclass(frozen=True)
class StructureScores:
    """Metrics of one structure over annotated voxels.

    Attributes
    ----------
    hd95_mm : 95th percentile of surface distances, the larger of both directions
    asd_mm : mean surface distance, both directions together
    volume_ml, reference_volume_ml : of prediction and reference
    missed : in one of the two only, so that distances are the diagonal of the image
    """

    dice: float
    jaccard: float
    hd95_mm: float
    asd_mm: float
    volume_ml: float
    reference_volume_ml: float
    missed: bool


def dice_per_class(prediction: Array, reference: Array, classes: Sequence[int]) -> dict[int, float]:
    """Compute Dice of each class, 1 where both are empty; for validation during training.

    Parameters
    ----------
    prediction, reference : integers (D, H, W); voxels whose reference is 255 do not count
    classes : values to score, without background

    Returns
    -------
    Dice of each class; empty if no voxel of the reference is annotated
    """
    annotation_mask = _annotation_mask(prediction, reference)
    if not annotation_mask.any():
        return {}
    return {
        int(value): _dice_and_jaccard(
            (prediction == value) & annotation_mask, (reference == value) & annotation_mask
        )[0]
        for value in classes
    }


def evaluate_case(
    prediction: Array,
    reference: Array,
    spacing_mm: Sequence[float],
    classes: Sequence[int],
    *,
    uncertainty: Array | None = None,
    confidence: Array | None = None,
    n_classes: int | None = None,
) -> dict[str, Any]:
    """Score one prediction.

    Parameters
    ----------
    prediction, reference : integers (D, H, W); voxels whose reference is 255 do not count
    spacing_mm : voxel size along D, H, W
    classes : values to score, without background
    uncertainty : (D, H, W) in [0, 1], entropy of the prediction divided by log(number of classes)
    confidence : (D, H, W) in [0, 1], probability of the predicted class; without it the
        calibration error comes from ``uncertainty``, see ``confidence_from_entropy``
    n_classes : number of classes of the network, with background, by whose logarithm the entropy
        was divided; the number of scored classes by default

    Returns
    -------
    JSON values. ``"classes"``: for each value (as text) the fields of ``StructureScores``;
    ``"mean_dice"`` over the classes; with an uncertainty map also ``"uncertainty"``, see
    ``evaluate_uncertainty``, and in it ``"score"``, the mean uncertainty around the prediction.

    Raises
    ------
    LabelError
        The reference has no annotated voxel, or there is no class to score.
    GeometryError
        Shapes differ.
    """
    annotation_mask = _annotation_mask(prediction, reference)
    if not classes:
        raise LabelError("There is no class to score: references and predictions are all 0.")
    if not annotation_mask.any():
        raise LabelError(
            "The reference has no annotated voxel (all are 255). Choose a reference with "
            "annotated voxels."
        )
    structures = {
        int(value): score_structure(
            (prediction == value) & annotation_mask,
            (reference == value) & annotation_mask,
            spacing_mm,
        )
        for value in classes
    }
    result: dict[str, Any] = {
        "classes": {str(value): asdict(scores) for value, scores in structures.items()},
        "mean_dice": float(np.mean([scores.dice for scores in structures.values()])),
    }
    if uncertainty is not None:
        _check_same_shape(uncertainty, reference, "uncertainty map")
        if confidence is not None:
            _check_same_shape(confidence, reference, "confidence map")
        result["uncertainty"] = evaluate_uncertainty(
            prediction,
            reference,
            annotation_mask,
            uncertainty,
            confidence,
            spacing_mm,
            n_classes or len(classes) + 1,
        )
        result["uncertainty"]["score"] = mean_foreground_uncertainty(
            prediction, uncertainty, spacing_mm
        )
    return result


def summarize(cases: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Compute mean and standard deviation of :func:`evaluate_case` results over cases.

    Returns
    -------
    ``"cases"``: their number; ``"mean_dice"`` and ``"sd_dice"`` over cases of the mean over
    classes; ``"classes"``: for each class, ``{"mean", "sd"}`` of each metric and ``missed``, the
    number of cases; with uncertainty maps ``"uncertainty"``: means of its metrics over the cases
    where they are defined, and ``rank_correlation``, Spearman's between score and 1 - mean Dice
    (None with fewer than three cases or if either is constant). Deviations are sample deviations.
    """
    if not cases:
        return {"cases": 0, "mean_dice": None, "sd_dice": None, "classes": {}}
    results = list(cases.values())
    dice = [float(result["mean_dice"]) for result in results]
    classes: dict[str, Any] = {}
    for value in results[0]["classes"]:
        scores = [result["classes"][value] for result in results]
        classes[value] = {m: _mean_sd([float(s[m]) for s in scores]) for m in SEGMENTATION_METRICS}
        classes[value]["missed"] = sum(bool(s["missed"]) for s in scores)
    overall = _mean_sd(dice)
    summary: dict[str, Any] = {
        "cases": len(results),
        "mean_dice": overall["mean"],
        "sd_dice": overall["sd"],
        "classes": classes,
    }
    results_with_maps = [result for result in results if "uncertainty" in result]
    if results_with_maps:
        summary["uncertainty"] = _summarize_uncertainty(results_with_maps)
    return summary


def _summarize_uncertainty(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    maps = [result["uncertainty"] for result in results]
    summary: dict[str, Any] = {"cases": len(results)}
    for measure in UNCERTAINTY_METRICS:
        defined = [float(m[measure]) for m in maps if m[measure] is not None]
        summary[measure] = float(np.mean(defined)) if defined else None
    summary["confidence_from"] = sorted({str(m["confidence_from"]) for m in maps})
    summary["rank_correlation"] = spearman(
        [float(m["score"]) for m in maps], [1.0 - float(result["mean_dice"]) for result in results]
    )
    return summary


def _mean_sd(values: Sequence[float]) -> dict[str, float]:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "sd": deviation}


def score_structure(
    predicted_mask: Mask, reference_mask: Mask, spacing_mm: Sequence[float]
) -> StructureScores:
    """Score one structure from its masks (D, H, W) of annotated voxels."""
    dice, jaccard = _dice_and_jaccard(predicted_mask, reference_mask)
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    n_predicted, n_reference = int(predicted_mask.sum()), int(reference_mask.sum())
    missed = (n_predicted == 0) != (n_reference == 0)
    if missed:
        shape_mm = np.array(reference_mask.shape) * np.array(spacing_mm)
        hd95 = asd = float(np.linalg.norm(shape_mm))
    elif n_predicted == 0:
        hd95 = asd = 0.0
    else:
        hd95, asd = _surface_distances(predicted_mask, reference_mask, spacing_mm)
    return StructureScores(
        dice=dice,
        jaccard=jaccard,
        hd95_mm=hd95,
        asd_mm=asd,
        volume_ml=n_predicted * voxel_ml,
        reference_volume_ml=n_reference * voxel_ml,
        missed=missed,
    )


def _dice_and_jaccard(predicted_mask: Mask, reference_mask: Mask) -> tuple[float, float]:
    """Compute Dice and Jaccard; both 1 if both masks are empty."""
    common, total = (
        int((predicted_mask & reference_mask).sum()),
        int(predicted_mask.sum()) + int(reference_mask.sum()),
    )
    if total == 0:
        return 1.0, 1.0
    return 2.0 * common / total, common / (total - common)


def _surface_distances(
    predicted_mask: Mask, reference_mask: Mask, spacing_mm: Sequence[float]
) -> tuple[float, float]:
    """Compute HD95 and symmetric mean surface distance in mm of two non-empty masks."""
    # Imported here because MONAI is slow to import and only surface distances need it.
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_distance import compute_average_surface_distance

    box = bounding_box(predicted_mask | reference_mask)
    assert box is not None
    # One channel each: (1, 1, d, h, w).
    pair = [
        torch.from_numpy(np.ascontiguousarray(m[box]))[None, None]
        for m in (predicted_mask, reference_mask)
    ]
    spacing = [float(s) for s in spacing_mm]
    with warnings.catch_warnings():
        # MONAI 1.6 internally passes an argument that it has deprecated.
        warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)
        hd95 = compute_hausdorff_distance(
            pair[0], pair[1], include_background=True, percentile=95, spacing=spacing
        )
        asd = compute_average_surface_distance(
            pair[0], pair[1], include_background=True, symmetric=True, spacing=spacing
        )
    return float(hd95), float(asd)


def _annotation_mask(prediction: Array, reference: Array) -> Mask:
    _check_same_shape(prediction, reference, "prediction")
    return np.asarray(reference != UNANNOTATED, np.bool_)


def _check_same_shape(array: Array, reference: Array, name: str) -> None:
    if array.shape != reference.shape or reference.ndim != 3:
        raise GeometryError(
            f"The {name} has shape {array.shape} and the reference {reference.shape}; expected "
            "the same (D, H, W). Predict on the scan of the reference."
        )
