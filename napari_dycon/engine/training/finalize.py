"""The end of a run: calibration of the model, and its metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from napari_dycon.engine.checkpoints.model_file import TrainedModel, save_weights
from napari_dycon.engine.data.preparation import TrainingData
from napari_dycon.engine.inference.temperature_scaling import CalibrationSample, fit_temperature
from napari_dycon.engine.inference.window_choice import choose_window_side
from napari_dycon.engine.training.retry import retry_on_full_disk
from napari_dycon.engine.training.setup import Compute
from napari_dycon.engine.training.validation import ValidationResult, Validator
from napari_dycon.project.runs.events import (
    CalibratedEvent,
    Event,
    FinishedEvent,
    StoppedEvent,
    WarningEvent,
)
from napari_dycon.project.runs.metadata import Outcome, RunMetrics
from napari_dycon.project.runs.run import Run

MIN_USEFUL_STEPS = 100  # fewer steps hardly train a network


@dataclass(frozen=True)
class RunSummary:
    """How a run ended."""

    outcome: Outcome
    step: int
    elapsed_s: float
    skipped_steps: int
    validation: ValidationResult

    def to_json(self) -> dict[str, Any]:
        """Return the fields of the last event and of the metrics."""
        return {
            "step": self.step,
            "elapsed_s": round(self.elapsed_s, 2),
            "skipped": self.skipped_steps,
            "dice": self.validation.mean,
        }


def calibrate(
    model: TrainedModel, step: int, data: TrainingData, compute: Compute, validator: Validator
) -> Generator[Event, None, TrainedModel]:
    """Choose the windows of predictions and fit the temperature on the validation cases."""
    side = choose_window_side(model, data.labeled, compute.device, compute.dtype)
    model = dataclasses.replace(model, window_side=side)
    if data.validation:
        samples: list[CalibrationSample] = []
        yield from validator.validate(model, step, samples)
        model = dataclasses.replace(model, temperature=fit_temperature(samples))
        yield CalibratedEvent(temperature=model.temperature)
    return model


def save_calibration(run: Run, model: TrainedModel, step: int) -> Iterator[Event]:
    """Write the weights again if calibration changed what is stored with them."""
    if model.window_side != 1.0 or model.temperature != 1.0:
        yield from retry_on_full_disk(lambda: save_weights(run.weights_path, model, step))


def finish_run(
    run: Run, summary: RunSummary, model: TrainedModel, data: TrainingData
) -> Iterator[Event]:
    """Write the metrics of a run and yield its last event."""
    max_steps = data.config.steps
    if summary.outcome == "finished" and summary.step < MIN_USEFUL_STEPS <= max_steps:
        yield WarningEvent(
            message=f"Only {summary.step} training steps fitted into the time limit, so the "
            "networks have hardly learned anything. Increase the time limit, or use a GPU."
        )
    metrics = RunMetrics(
        **summary.to_json(),
        outcome=summary.outcome,
        validation=summary.validation.to_json(),
        temperature=model.temperature,
        window_side=model.window_side,
        labeled=[case.id for case in data.labeled],
        unlabeled=len(data.unlabeled),
    )
    yield from retry_on_full_disk(lambda: run.write_metrics(metrics))
    if summary.outcome == "stopped":
        yield StoppedEvent(**summary.to_json())
    else:
        reason: Literal["steps", "time limit"] = (
            "steps" if summary.step >= max_steps else "time limit"
        )
        yield FinishedEvent(**summary.to_json(), reason=reason)
