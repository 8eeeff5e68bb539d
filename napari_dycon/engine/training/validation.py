"""Dice of the validation cases while training runs and at its end."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from napari_dycon.engine.checkpoints.model_file import TrainedModel
from napari_dycon.engine.data.preparation import TrainingData, values_to_indices
from napari_dycon.engine.data.prepared_scans import PreparedScans
from napari_dycon.engine.device import empty_cache, is_out_of_memory
from napari_dycon.engine.evaluation.segmentation_metrics import dice_per_class
from napari_dycon.engine.inference.predict import predict_members
from napari_dycon.engine.inference.prediction_effort import Effort, reduce_effort
from napari_dycon.engine.inference.temperature_scaling import (
    CalibrationSample,
    sample_calibration_voxels,
)
from napari_dycon.engine.inference.uncertainty import ensemble_mean
from napari_dycon.engine.training.background_task import TaskRunner
from napari_dycon.engine.training.clock import TrainingClock
from napari_dycon.engine.training.interval import Interval
from napari_dycon.engine.training.setup import Compute
from napari_dycon.engine.training.time_plan import TimePlan, ValidationPlan
from napari_dycon.errors import DyconError
from napari_dycon.project.runs.events import Event, PhaseEvent, ValidationEvent, WarningEvent

MAX_TIME_FRACTION = 0.04  # of a run's time, which validation before the end may take
NO_TIME = "The time limit left no time for it."


@dataclass(frozen=True)
class ValidationResult:
    """Dice over the validation cases, and skipped cases with the reason."""

    dice: dict[str, float] = field(default_factory=dict)  # mean of each class value
    mean: float | None = None  # over classes; None if no case could be evaluated
    skipped_cases: dict[str, str] = field(default_factory=dict)
    ensemble: bool = True  # whether the whole ensemble was evaluated

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "dice": self.dice,
            "mean": self.mean,
            "skipped_cases": self.skipped_cases,
            "ensemble": self.ensemble,
        }


class CaseResult(NamedTuple):
    """Dice of each class of a case; or the reason why it was skipped."""

    dice: dict[int, float]
    sample: CalibrationSample | None = None
    skip_reason: str = ""


class Validator:
    """Evaluation of the validation cases of a run; keeps the latest result."""

    def __init__(
        self,
        scans: PreparedScans,
        data: TrainingData,
        compute: Compute,
        clock: TrainingClock,
        plan: TimePlan,
        tasks: TaskRunner,
    ) -> None:
        self._scans, self._data, self._compute, self._clock = scans, data, compute, clock
        self._plan, self._tasks = plan, tasks
        self._interval = Interval(data.config.intervals.validation_s, MAX_TIME_FRACTION, plan.joint)
        self.result = ValidationResult()

    def validate_if_due(self, model: TrainedModel, step: int) -> Iterator[Event]:
        """Evaluate the validation cases if there are any and an evaluation is due."""
        is_enabled = self._data.validation and self._data.config.validation
        now = self._clock.elapsed()
        if not is_enabled or self._interval.is_waiting(now):
            return
        plan = self._plan.plan_running_validation(model)
        is_due = self._interval.is_due(now, plan.seconds, self._clock.time_limit_s)
        # The end of the run validates again.
        is_near_end = self._clock.training_time_left() < plan.seconds
        if not is_due or not plan.n_cases or is_near_end or self._clock.progress(step) >= 1.0:
            return
        yield from self.validate(model, step, plan)
        self._interval.record(self._clock.elapsed(), self._clock.elapsed() - now)
        yield PhaseEvent(phase="training", remaining_s=self._plan.remaining(step))

    def validate(
        self,
        model: TrainedModel,
        step: int,
        plan: ValidationPlan,
        samples: list[CalibrationSample] | None = None,
        *,
        is_late: Callable[[], bool] = lambda: False,
        obeys_stop: bool = True,
    ) -> Iterator[Event]:
        """Evaluate the validation cases; yields the result, and a warning about skipped cases.

        There is no result if the user stops the run meanwhile.

        Parameters
        ----------
        plan : effort, and number of cases from the first on
        samples : if given, is extended by the voxels that a temperature is fitted on
        is_late : whether the time of the validation is over; the other cases are skipped then
        obeys_stop : whether a request to stop ends it
        """
        results: dict[str, CaseResult] = {}
        cases = self._data.validation
        for number, case in enumerate(cases[: plan.n_cases]):
            if is_late():
                break
            found = yield from self._evaluate_in_background(
                model, step, case, number, plan, samples is not None, is_late, obeys_stop
            )
            if found is None and not is_late():
                return
            results[case] = found or CaseResult({}, skip_reason=NO_TIME)
        results |= {
            case: CaseResult({}, skip_reason=NO_TIME) for case in cases if case not in results
        }
        previous, self.result = self.result, self._summarize(results, plan.effort)
        if samples is not None:
            samples += [r.sample for r in results.values() if r.sample is not None]
        progress = self._clock.progress(step)
        yield ValidationEvent(step=step, progress=progress, **self.result.to_json())
        if self.result.skipped_cases != previous.skipped_cases:
            yield from _warn_about_skipped_cases(self.result)

    def _evaluate_in_background(
        self,
        model: TrainedModel,
        step: int,
        case: str,
        number: int,
        plan: ValidationPlan,
        has_sample: bool,
        is_late: Callable[[], bool],
        obeys_stop: bool,
    ) -> Generator[Event, None, CaseResult | None]:
        """Evaluate a case while the run reports it; returns ``None`` if it was interrupted."""

        def describe() -> Event:
            return PhaseEvent(
                phase="validation",
                done=number,
                total=plan.n_cases,
                remaining_s=self._plan.remaining(step),
            )

        yield describe()
        shape, begin = self._plan.prepared_shape(case, model), self._clock.elapsed()
        found = yield from self._tasks.run(
            lambda: self._evaluate(reduce_effort(model, plan.effort), case, has_sample),
            describe,
            is_late=is_late,
            obeys_stop=obeys_stop,
        )
        if found and not found.skip_reason and shape is not None:
            seconds = self._clock.elapsed() - begin
            self._plan.timer.record(model, shape, plan.effort, seconds)
        return found

    def _evaluate(self, model: TrainedModel, case: str, has_sample: bool) -> CaseResult:
        """Compute the Dice of each class of a case, on its own grid, and sample its voxels.

        A case that cannot be read or does not fit into memory is skipped.
        """
        device, dtype, class_values = (
            self._compute.device,
            self._compute.dtype,
            self._data.class_values,
        )
        try:
            volume, prepared = self._scans.read(case, model.config)
            label = self._scans.read_label(case, volume)
            if label is None:
                return CaseResult({})
            with self._tasks.checked_windows(model.student, model.teacher):
                members = list(
                    predict_members(model, prepared, volume.shape, device, dtype, fast=True)
                )
        except DyconError as error:  # a failed validation must not end the run
            return CaseResult({}, skip_reason=str(error))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            empty_cache(device)
            return CaseResult({}, skip_reason="Memory ran out.")
        self._tasks.check()
        values = np.array([0, *class_values], dtype=np.uint8)
        mask = values[ensemble_mean(members).argmax(dim=0).numpy()]
        dice = dice_per_class(mask, label, class_values)
        if not has_sample:
            return CaseResult(dice)
        self._tasks.check()
        indices = values_to_indices(label, class_values)
        return CaseResult(dice, sample_calibration_voxels(members, indices, volume.spacing_mm))

    def _summarize(self, results: dict[str, CaseResult], effort: Effort) -> ValidationResult:
        """Compute the mean Dice of each class and over all classes."""
        scores: dict[int, list[float]] = {value: [] for value in self._data.class_values}
        for result in results.values():
            for value, dice in result.dice.items():
                scores[value].append(dice)
        means = {str(value): float(np.mean(found)) for value, found in scores.items() if found}
        return ValidationResult(
            {key: round(value, 5) for key, value in means.items()},
            round(float(np.mean(list(means.values()))), 5) if means else None,
            {case: result.skip_reason for case, result in results.items() if result.skip_reason},
            effort is Effort.ENSEMBLE,
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
