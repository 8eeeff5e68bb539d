"""Dice of the validation cases while training runs and at its end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_dycon.engine.checkpoints.model_file import TrainedModel
from napari_dycon.engine.data.preparation import TrainingData, values_to_indices
from napari_dycon.engine.device import empty_cache, is_out_of_memory
from napari_dycon.engine.evaluation.segmentation_metrics import dice_per_class
from napari_dycon.engine.inference.predict import predict_members
from napari_dycon.engine.inference.temperature_scaling import (
    CalibrationSample,
    sample_calibration_voxels,
)
from napari_dycon.engine.inference.uncertainty import ensemble_mean
from napari_dycon.engine.training.prepared_scans import PreparedScans
from napari_dycon.errors import DyconError
from napari_dycon.project.runs.events import Event

if TYPE_CHECKING:
    from napari_dycon.project.store import Project


def validate(
    project: Project,
    scans: PreparedScans,
    data: TrainingData,
    model: TrainedModel,
    device: torch.device,
    dtype: torch.dtype,
    samples: list[CalibrationSample] | None = None,
) -> dict[str, object]:
    """Mean Dice of each class over the validation cases, on their own grids.

    Cases that memory does not suffice for, or that cannot be read, are left out, and named under
    ``missed`` with the reason. ``samples`` is given what a temperature can be fitted on, where it
    is asked for.
    """
    scores: dict[int, list[float]] = {value: [] for value in data.class_values}
    skipped_cases: dict[str, str] = {}
    values = np.array([0, *data.class_values], dtype=np.uint8)
    for case in data.validation:
        try:
            volume, prepared = scans.read(case, model.config)
            label = project.labels.read(case, reference=volume)
            if label is None:
                continue
            members = list(predict_members(model, prepared, volume.shape, device, dtype, fast=True))
        except DyconError as error:  # the run must not end for a score
            skipped_cases[case] = str(error)
            continue
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            empty_cache(device)
            skipped_cases[case] = "Memory ran out."
            continue
        mask = values[ensemble_mean(members).argmax(dim=0).numpy()]
        for value, dice in dice_per_class(mask, label, data.class_values).items():
            scores[value].append(dice)
        if samples is not None:
            indices = values_to_indices(label, data.class_values)
            sample = sample_calibration_voxels(members, indices, volume.spacing_mm)
            samples += [sample] if sample is not None else []
    means = {str(value): float(np.mean(found)) for value, found in scores.items() if found}
    return {
        "dice": {key: round(value, 5) for key, value in means.items()},
        "mean": round(float(np.mean(list(means.values()))), 5) if means else None,
        **({"missed": skipped_cases} if skipped_cases else {}),
    }


def warn_about_skipped_cases(validation: dict[str, object]) -> Iterator[Event]:
    """Tell of the cases that a validation had to leave out."""
    skipped_cases = validation.get("missed")
    if skipped_cases and isinstance(skipped_cases, dict):
        name, reason = next(iter(skipped_cases.items()))
        more = f" and {len(skipped_cases) - 1} more" if len(skipped_cases) > 1 else ""
        rest = "and the Dice is of the rest"
        if validation["mean"] is None:
            rest = "so that there is no Dice, and the uncertainty is not calibrated"
        yield {
            "event": "warning",
            "message": f"Validation case {name}{more} could not be scored, {rest}. {reason}",
        }
