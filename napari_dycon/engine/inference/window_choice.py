"""Choice of the window size at inference: that of training patches, or larger.

Larger windows take less time where patches are small, and show more context. But normalization
layers learn their statistics on patches, and where a patch is nearly as large as the scan, a
network also learns the positions of structures in a patch: larger windows then cost several points
of Dice. The loss is as visible on training cases as on others, so these are used to measure it.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_dycon.core.types import UNANNOTATED
from napari_dycon.engine.checkpoints.model_file import TrainedModel
from napari_dycon.engine.data.cases import LabeledCase
from napari_dycon.engine.data.preprocessing import read_image_array, read_label_array
from napari_dycon.engine.device import is_out_of_memory
from napari_dycon.engine.evaluation.segmentation_metrics import dice_per_class
from napari_dycon.engine.inference.predict import predict_probabilities
from napari_dycon.engine.inference.windows import plan_windows
from napari_dycon.errors import DyconError

LARGER_SIDE = 1.25  # of a window, in sides of a patch
# Accepted loss of mean Dice. Measured on three networks each: 1.7 to 2.4 points on the left atrium,
# where up to 4 are lost on other scans; at most 0.8 on the hippocampus and in the demo, where next
# to nothing is lost.
MAX_DICE_LOSS = 0.01
MIN_DICE = 0.5  # of either size, below which a case is not informative
MAX_CASES = 4
MAX_DURATION_S = 60.0  # after which no further prediction is started
CROP_SIDE = 1.75  # of the crop to predict, in sides of a patch: two windows of either size
MAX_SAMPLED_VOXELS = 100_000  # of structures, to find their center


def choose_window_side(
    model: TrainedModel,
    cases: Sequence[LabeledCase],
    device: torch.device,
    dtype: torch.dtype,
    *,
    max_duration_s: float = math.inf,
) -> float:
    """Choose the side of a window in sides of the training patch: ``LARGER_SIDE`` or 1.

    The teacher predicts crops of some labeled cases with both sizes. If memory, time or the cases'
    files do not suffice, or the result is not informative, windows are as large as patches.
    """
    dice_losses = []
    try:
        deadline = time.monotonic() + min(max_duration_s, MAX_DURATION_S)
        for patch_dice, larger_dice in _compare_window_sides(model, cases, device, dtype, deadline):
            if max(patch_dice, larger_dice) >= MIN_DICE:
                dice_losses.append(patch_dice - larger_dice)
    except (DyconError, OSError):
        return 1.0
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return 1.0
    return LARGER_SIDE if dice_losses and np.mean(dice_losses) <= MAX_DICE_LOSS else 1.0


def _compare_window_sides(
    model: TrainedModel,
    cases: Sequence[LabeledCase],
    device: torch.device,
    dtype: torch.dtype,
    deadline: float,
) -> Iterator[tuple[float, float]]:
    """Yield the mean Dice on a crop of each case with windows as large as patches, and larger."""
    models = [dataclasses.replace(model, window_side=side) for side in (1.0, LARGER_SIDE)]
    for case in cases[:MAX_CASES]:
        label = read_label_array(case.label)
        box = _find_structure_box(label, model)
        if box is None or _has_same_windows(model, label[box].shape):
            continue
        image = torch.from_numpy(np.array(read_image_array(case.image)[(slice(None), *box)]))
        scores = []
        for sized_model in models:
            if time.monotonic() > deadline:
                return
            scores.append(_mean_dice(sized_model, image, label[box], device, dtype))
        yield scores[0], scores[1]


def _has_same_windows(model: TrainedModel, shape: Sequence[int]) -> bool:
    assert model.config.batch.patch_size is not None
    patch_windows, larger_windows = (
        plan_windows(shape, model.config.batch.patch_size, side=side) for side in (1.0, LARGER_SIDE)
    )
    return patch_windows == larger_windows


def _mean_dice(
    model: TrainedModel,
    image: Tensor,
    label: npt.NDArray[np.uint8],
    device: torch.device,
    dtype: torch.dtype,
) -> float:
    """Compute the teacher's mean Dice over the structures in a crop of a scan."""
    classes = [value for value in np.unique(label).tolist() if value not in (0, UNANNOTATED)]
    probabilities = predict_probabilities(model.teacher, model, image.float(), device, dtype)
    mask = probabilities.cpu().argmax(dim=0).numpy().astype(np.uint8)
    return float(np.mean(list(dice_per_class(mask, label, classes).values())))


def _find_structure_box(
    label: npt.NDArray[np.uint8], model: TrainedModel
) -> tuple[slice, ...] | None:
    """Return a box around the center of the structures; ``None`` if the label has none."""
    assert model.config.batch.patch_size is not None
    indices = np.flatnonzero((label != 0) & (label != UNANNOTATED))
    if not len(indices):
        return None
    indices = indices[:: -(-len(indices) // MAX_SAMPLED_VOXELS)]
    coordinates = np.stack(np.unravel_index(indices, label.shape), axis=1)
    middle = coordinates[np.linalg.norm(coordinates - coordinates.mean(axis=0), axis=1).argmin()]
    box = []
    for center, length, patch_side in zip(
        middle, label.shape, model.config.batch.patch_size, strict=True
    ):
        side = min(round(CROP_SIDE * patch_side), length)
        start = min(max(int(center) - side // 2, 0), length - side)
        box.append(slice(start, start + side))
    return tuple(box)
