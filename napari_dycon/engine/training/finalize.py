"""The end of a run: calibration of the model, and its metrics."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from napari_dycon.engine.checkpoints.model_file import TrainedModel, save_weights
from napari_dycon.engine.data.preparation import TrainingData
from napari_dycon.engine.inference.prediction_effort import Effort
from napari_dycon.engine.inference.temperature_scaling import CalibrationSample, fit_temperature
from napari_dycon.engine.inference.window_choice import choose_window_side
from napari_dycon.engine.training.background_task import TaskRunner
from napari_dycon.engine.training.clock import TrainingClock
from napari_dycon.engine.training.retry import retry_on_full_disk
from napari_dycon.engine.training.setup import Compute
from napari_dycon.engine.training.time_plan import SAVING_S, STOP_S, TimePlan, ValidationPlan
from napari_dycon.engine.training.validation import ValidationResult, Validator
from napari_dycon.project.runs.events import (
    CalibratedEvent,
    Event,
    FinishedEvent,
    PhaseEvent,
    StoppedEvent,
    WarningEvent,
)
from napari_dycon.project.runs.metadata import Outcome, RunMetrics
from napari_dycon.project.runs.run import Run

MIN_USEFUL_STEPS = 100  # fewer steps hardly train a network
EFFORTS = list(Effort)  # from the most accurate one on
NO_VALIDATION = (
    "The time limit left no time to evaluate the validation cases, so their Dice is missing or "
    "older, and the uncertainty is not calibrated."
)
NOTHING_LEARNED = (
    "Nothing was learned: the time limit ended before the first training step. Loading and "
    "preparing the scans took all of it. Train for some minutes."
)


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


class Finisher:
    """The end of a run: its model is saved, calibrated and evaluated, within the time left."""

    def __init__(
        self,
        run: Run,
        data: TrainingData,
        compute: Compute,
        clock: TrainingClock,
        plan: TimePlan,
        tasks: TaskRunner,
        validator: Validator,
    ) -> None:
        self._run, self._data, self._compute, self._clock = run, data, compute, clock
        self._plan, self._tasks, self._validator = plan, tasks, validator

    def begin(self, model: TrainedModel, step: int, outcome: Outcome) -> Iterator[Event]:
        """Plan the end and report that it has begun."""
        self._outcome = outcome
        if step:
            self._plan.timer.measure(model)
        self._choice_s, self._validation = 0.0, ValidationPlan(Effort.ENSEMBLE, 0, 0.0)
        if step and outcome == "stopped":
            self._plan_stopped(model)
        elif step:
            self._plan_finished(model)
        self._plan.begin_end(self._choice_s + self._validation.seconds + SAVING_S)
        yield self._describe(step)

    def _plan_stopped(self, model: TrainedModel) -> None:
        """Plan the end of a stopped run: what takes a moment only."""
        n_cases = len(self._data.validation)
        plan = self._plan.plan_validation(model, STOP_S)
        self._validation = plan if plan.n_cases == n_cases else plan._replace(n_cases=0, seconds=0)
        choice_s = self._plan.window_choice_seconds()
        self._choice_s = choice_s if choice_s < STOP_S else 0.0

    def _plan_finished(self, model: TrainedModel) -> None:
        """Plan the end of a finished run: what fits into the time left."""
        self._choice_s = self._plan.window_choice_seconds()
        left_s = self._clock.time_left() - SAVING_S
        planned = self._plan.plan_running_validation(model)
        if self._choice_s and left_s < planned.seconds + self._choice_s:
            self._choice_s = 0.0
        # The plan of the running validations holds even if it takes slightly longer than planned.
        is_possible = planned.n_cases and planned.seconds <= left_s + self._plan.grace_s
        better = self._plan.plan_validation(model, left_s - self._choice_s)
        is_better = (better.n_cases, -EFFORTS.index(better.effort)) > (
            planned.n_cases,
            -EFFORTS.index(planned.effort),
        )
        if is_better or not is_possible:
            planned = better
        if not planned.n_cases and self._data.validation:
            planned = self._plan.plan_validation(model, left_s + self._plan.grace_s)
        self._validation = planned

    def calibrate(self, model: TrainedModel, step: int) -> Generator[Event, None, TrainedModel]:
        """Choose the windows of predictions and fit the temperature on the validation cases."""
        obeys_stop = self._outcome != "stopped"
        if self._choice_s:
            side = yield from self._tasks.run(
                lambda: self._choose_window_side(model),
                lambda: self._describe(step),
                is_late=self._plan.is_overdue,
                obeys_stop=obeys_stop,
            )
            model = dataclasses.replace(model, window_side=side or 1.0)
        if not self._data.validation:
            return model
        if not self._validation.n_cases:
            if self._outcome != "stopped":
                yield WarningEvent(message=NO_VALIDATION)
            return model
        samples: list[CalibrationSample] = []
        yield from self._validator.validate(
            model,
            step,
            self._validation,
            samples,
            is_late=self._plan.is_overdue,
            obeys_stop=obeys_stop,
        )
        yield self._describe(step)
        model = dataclasses.replace(model, temperature=fit_temperature(samples))
        yield CalibratedEvent(temperature=model.temperature)
        return model

    def _choose_window_side(self, model: TrainedModel) -> float:
        max_duration_s = self._choice_s if self._clock.is_limited else math.inf
        with self._tasks.checked_windows(model.teacher):
            return choose_window_side(
                model,
                self._data.labeled,
                self._compute.device,
                self._compute.dtype,
                max_duration_s=max_duration_s,
            )

    def _describe(self, step: int) -> Event:
        return PhaseEvent(phase="finishing", remaining_s=self._plan.remaining(step))


def save_calibration(run: Run, model: TrainedModel, step: int) -> Iterator[Event]:
    """Write the weights again if calibration changed what is stored with them."""
    if model.window_side != 1.0 or model.temperature != 1.0:
        yield from retry_on_full_disk(lambda: save_weights(run.weights_path, model, step))


def finish_run(
    run: Run, summary: RunSummary, model: TrainedModel, data: TrainingData
) -> Iterator[Event]:
    """Write the metrics of a run and yield its last event."""
    max_steps = data.config.steps
    if summary.outcome == "finished" and not summary.step:
        yield WarningEvent(message=NOTHING_LEARNED)
    elif summary.outcome == "finished" and summary.step < MIN_USEFUL_STEPS <= max_steps:
        yield WarningEvent(
            message=f"The time was too short to learn much ({summary.step} steps). Train longer."
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
