"""A label beside a prediction: how far they agree, how large they are, where they part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_dycon.project.models import UNANNOTATED

Mask = npt.NDArray[np.uint8]
ADDED, MISSED, OTHER = 1, 2, 3  # values of a difference


@dataclass(frozen=True)
class StructureComparison:
    """One structure; volumes in ml, ``dice`` over annotated voxels or ``None`` without any."""

    value: int
    label_ml: float | None
    prediction_ml: float | None
    dice: float | None


def compare(
    label: Mask, prediction: Mask | None, values: Sequence[int], spacing: Sequence[float]
) -> list[StructureComparison]:
    """Compare structure by structure.

    A label's volume is that of its painted voxels, also where only some slices are annotated.
    """
    ml = float(np.prod(spacing)) / 1000.0
    in_label = np.bincount(label.reshape(-1), minlength=256)
    found = []
    if prediction is None:
        return [StructureComparison(v, _volume(int(in_label[v]), ml), None, None) for v in values]
    in_prediction = np.bincount(prediction.reshape(-1), minlength=256)
    known = label != UNANNOTATED
    ours, theirs = label[known], prediction[known]
    sizes = np.bincount(ours, minlength=256) + np.bincount(theirs, minlength=256)
    common = np.bincount(ours[ours == theirs], minlength=256)
    for value in values:
        drawn = int(in_label[value])
        dice = 2 * int(common[value]) / int(sizes[value]) if drawn and sizes[value] else None
        volume = _volume(int(in_prediction[value]), ml)
        found.append(StructureComparison(value, _volume(drawn, ml), volume or 0.0, dice))
    return found


def difference(label: Mask, prediction: Mask) -> Mask:
    """Where they part: ``ADDED`` by the prediction, ``MISSED`` by it, or ``OTHER`` structure.

    Where nobody annotated, only what the prediction adds counts.
    """
    result = np.zeros(label.shape, np.uint8)
    drawn = (label != 0) & (label != UNANNOTATED)
    result[(prediction > 0) & ~drawn] = ADDED
    result[drawn & (prediction == 0)] = MISSED
    result[drawn & (prediction > 0) & (prediction != label)] = OTHER
    return result


def _volume(voxels: int, ml: float) -> float | None:
    return voxels * ml if voxels else None
