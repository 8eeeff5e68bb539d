"""Comparison of a label with a prediction: Dice, volumes, and a map of differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_dycon.core.counting import count_values, list_parts
from napari_dycon.core.types import UNANNOTATED, LabelArray

ADDED, MISSED, OTHER_STRUCTURE = 1, 2, 3  # values of a difference map
N_VALUES = 256  # of labels


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
    if prediction is None:
        counts = count_label_values(label)
        return [
            StructureComparison(v, _volume_ml(int(counts[v]), voxel_ml), None, None) for v in values
        ]
    pairs = count_pairs(label, prediction)
    label_counts, prediction_counts = pairs.sum(axis=1), pairs.sum(axis=0)
    pairs[UNANNOTATED] = 0
    sizes = pairs.sum(axis=1) + pairs.sum(axis=0)
    common = pairs.diagonal()
    comparisons = []
    for value in values:
        n_labeled = int(label_counts[value])
        dice = 2 * int(common[value]) / int(sizes[value]) if n_labeled and sizes[value] else None
        volume = _volume_ml(int(prediction_counts[value]), voxel_ml)
        comparisons.append(
            StructureComparison(value, _volume_ml(n_labeled, voxel_ml), volume or 0.0, dice)
        )
    return comparisons


def count_label_values(label: LabelArray) -> npt.NDArray[np.int64]:
    """Count the voxels of each value, ``(256,)``."""
    return count_values(label, N_VALUES)


def count_pairs(label: LabelArray, prediction: LabelArray) -> npt.NDArray[np.int64]:
    """Count the voxels of each pair of values, ``(256, 256)``, in small parts as well."""
    flat_label, flat_prediction = label.reshape(-1), prediction.reshape(-1)
    counts = np.zeros(N_VALUES * N_VALUES, np.int64)
    for part in list_parts(flat_label.size):
        # The values of predictions are few and low, so that most counts need not be made.
        pairs = flat_prediction[part].astype(np.uint16)
        pairs *= N_VALUES
        pairs += flat_label[part]
        found = np.bincount(pairs)
        counts[: len(found)] += found
    return counts.reshape(N_VALUES, N_VALUES).T


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
