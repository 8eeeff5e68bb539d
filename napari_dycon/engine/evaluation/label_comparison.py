"""Comparison of a label with a prediction: Dice, volumes, and a map of differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_dycon.core.types import UNANNOTATED, LabelArray

ADDED, MISSED, OTHER_STRUCTURE = 1, 2, 3  # values of a difference map


@dataclass(frozen=True)
class StructureComparison:
    """One structure: volumes in ml, and Dice over annotated voxels, ``None`` without any."""

    value: int
    label_ml: float | None
    prediction_ml: float | None
    dice: float | None


def compare_structures(
    label: LabelArray,
    prediction: LabelArray | None,
    values: Sequence[int],
    spacing_mm: Sequence[float],
) -> list[StructureComparison]:
    """Compare label and prediction structure by structure.

    A label's volume is that of its labeled voxels, even if only some slices are annotated.
    """
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    label_counts = np.bincount(label.reshape(-1), minlength=256)
    comparisons = []
    if prediction is None:
        return [
            StructureComparison(v, _volume_ml(int(label_counts[v]), voxel_ml), None, None)
            for v in values
        ]
    prediction_counts = np.bincount(prediction.reshape(-1), minlength=256)
    is_annotated = label != UNANNOTATED
    label_values, prediction_values = label[is_annotated], prediction[is_annotated]
    sizes = np.bincount(label_values, minlength=256) + np.bincount(prediction_values, minlength=256)
    common = np.bincount(label_values[label_values == prediction_values], minlength=256)
    for value in values:
        n_labeled = int(label_counts[value])
        dice = 2 * int(common[value]) / int(sizes[value]) if n_labeled and sizes[value] else None
        volume = _volume_ml(int(prediction_counts[value]), voxel_ml)
        comparisons.append(
            StructureComparison(value, _volume_ml(n_labeled, voxel_ml), volume or 0.0, dice)
        )
    return comparisons


def difference_map(label: LabelArray, prediction: LabelArray) -> LabelArray:
    """Mark differences: ``ADDED`` or ``MISSED`` by the prediction, or ``OTHER_STRUCTURE``.

    In unannotated voxels, only structures that the prediction adds are marked.
    """
    result = np.zeros(label.shape, np.uint8)
    is_labeled = (label != 0) & (label != UNANNOTATED)
    result[(prediction > 0) & ~is_labeled] = ADDED
    result[is_labeled & (prediction == 0)] = MISSED
    result[is_labeled & (prediction > 0) & (prediction != label)] = OTHER_STRUCTURE
    return result


def _volume_ml(n_voxels: int, voxel_ml: float) -> float | None:
    return n_voxels * voxel_ml if n_voxels else None
