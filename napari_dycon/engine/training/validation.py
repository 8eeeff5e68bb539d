"""Dice of the validation cases while training runs and at its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_dycon.engine.checkpoints.model_file import TrainedModel
from napari_dycon.engine.data.preparation import TrainingData, values_to_indices
from napari_dycon.engine.data.prepared_scans import PreparedScans
from napari_dycon.engine.device import empty_cache, is_out_of_memory
from napari_dycon.engine.evaluation.segmentation_metrics import dice_per_class
from napari_dycon.engine.inference.predict import predict_members
from napari_dycon.engine.inference.temperature_scaling import (
    CalibrationSample,
    sample_calibration_voxels,
)
from napari_dycon.engine.inference.uncertainty import ensemble_mean
from napari_dycon.engine.training.clock import TrainingClock
from napari_dycon.engine.training.interval import Interval
from napari_dycon.engine.training.setup import Compute
from napari_dycon.errors import DyconError
from napari_dycon.project.runs.events import Event, ValidationEvent, WarningEvent

VALIDATION_TIME_FRACTION = 0.015  # of a run's time, at most


@dataclass(frozen=True)
class ValidationResult:
    """Dice over the validation cases, and skipped cases with the reason."""

    dice: dict[str, float] = field(default_factory=dict)  # mean of each class value
    mean: float | None = None  # over classes; None if no case could be evaluated
    skipped_cases: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"dice": self.dice, "mean": self.mean, "skipped_cases": self.skipped_cases}


class Validator:
    """Evaluation of the validation cases of a run; keeps the latest result."""

    def __init__(
        self, scans: PreparedScans, data: TrainingData, compute: Compute, clock: TrainingClock
    ) -> None:
        self._scans, self._data, self._compute, self._clock = scans, data, compute, clock
        self._interval = Interval(data.config.intervals.validation_s, VALIDATION_TIME_FRACTION)
        self.result = ValidationResult()

    def validate_if_due(self, model: TrainedModel, step: int) -> Iterator[Event]:
        """Evaluate the validation cases if there are any and an evaluation is due."""
        is_due = self._data.validation and self._interval.is_due(self._clock.elapsed())
        if not is_due or self._clock.progress(step) >= 1.0:  # the end of the run validates again
            return
        begin = time.monotonic()
        yield from self.validate(model, step)
        self._interval.record(self._clock.elapsed(), time.monotonic() - begin)

    def validate(
        self, model: TrainedModel, step: int, samples: list[CalibrationSample] | None = None
    ) -> Iterator[Event]:
        """Evaluate the validation cases; yields the result, and a warning about skipped cases.

        ``samples``, if given, is extended by the voxels that a temperature is fitted on.
        """
        previous, self.result = self.result, self._evaluate(model, samples)
        progress = self._clock.progress(step)
        yield ValidationEvent(step=step, progress=progress, **self.result.to_json())
        if self.result.skipped_cases != previous.skipped_cases:
            yield from _warn_about_skipped_cases(self.result)

    def _evaluate(
        self, model: TrainedModel, samples: list[CalibrationSample] | None
    ) -> ValidationResult:
        """Compute the mean Dice of each class over the validation cases, on their own grids.

        Cases that cannot be read or do not fit into memory are skipped.
        """
        device, dtype = self._compute.device, self._compute.dtype
        scores: dict[int, list[float]] = {value: [] for value in self._data.class_values}
        skipped_cases: dict[str, str] = {}
        values = np.array([0, *self._data.class_values], dtype=np.uint8)
        for case in self._data.validation:
            try:
                volume, prepared = self._scans.read(case, model.config)
                label = self._scans.read_label(case, volume)
                if label is None:
                    continue
                members = list(
                    predict_members(model, prepared, volume.shape, device, dtype, fast=True)
                )
            except DyconError as error:  # a failed validation must not end the run
                skipped_cases[case] = str(error)
                continue
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                empty_cache(device)
                skipped_cases[case] = "Memory ran out."
                continue
            mask = values[ensemble_mean(members).argmax(dim=0).numpy()]
            for value, dice in dice_per_class(mask, label, self._data.class_values).items():
                scores[value].append(dice)
            if samples is not None:
                indices = values_to_indices(label, self._data.class_values)
                sample = sample_calibration_voxels(members, indices, volume.spacing_mm)
                samples += [sample] if sample is not None else []
        means = {str(value): float(np.mean(found)) for value, found in scores.items() if found}
        return ValidationResult(
            {key: round(value, 5) for key, value in means.items()},
            round(float(np.mean(list(means.values()))), 5) if means else None,
            skipped_cases,
        )


def _warn_about_skipped_cases(result: ValidationResult) -> Iterator[Event]:
    """Yield a warning that names the cases that a validation skipped."""
    if not result.skipped_cases:
        return
    name, reason = next(iter(result.skipped_cases.items()))
    more = f" and {len(result.skipped_cases) - 1} more" if len(result.skipped_cases) > 1 else ""
    rest = "and the Dice is of the rest"
    if result.mean is None:
        rest = "so that there is no Dice, and the uncertainty is not calibrated"
    yield WarningEvent(
        message=f"Validation case {name}{more} could not be evaluated, {rest}. {reason}"
    )
