"""Plan of the time of a run: what its end takes, and how long it still lasts.

A run with a time limit reserves time for its end, which is measured early: scoring the validation
cases, choosing the windows of predictions, and saving. What does not fit is reduced: fewer networks
and scales, then fewer cases.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from typing import NamedTuple

from napari_dycon.engine.checkpoints.model_file import TrainedModel
from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.data.preparation import TrainingData
from napari_dycon.engine.data.prepared_scans import PreparedScans
from napari_dycon.engine.inference.prediction_effort import Effort, PredictionTimer
from napari_dycon.engine.inference.window_choice import LARGER_SIDE, MAX_CASES
from napari_dycon.engine.training.clock import TrainingClock
from napari_dycon.engine.training.interval import MAX_JOINT_FRACTION, JointTime
from napari_dycon.errors import DyconError

VALIDATION_FRACTION = 0.06  # of a time limit, at most, for the validation at its end
MIN_VALIDATION_S = 10.0  # or this, if a tenth of the limit is not less
WINDOW_CHOICE_FRACTION = 0.03  # of a time limit
WINDOW_CHOICE_WINDOWS = 8 * (1 + LARGER_SIDE**3)  # of one case, in windows as large as a patch
SAVING_S = 2.0  # for weights and metrics
REGISTRATION_FRACTION = 0.2  # of a time limit, at most, until registration has ended
MIN_STEPS = 20  # for which registration leaves time
MAX_OVERRUN_FRACTION, MAX_OVERRUN_S = 0.06, 12.0  # of a time limit; the larger one
STOP_S = 1.5  # for the validation of a run that the user stops
RECENT_STEPS = 8
FORWARD_COST = 1 / 3  # of a forward pass, relative to a step on the same patches


class ValidationPlan(NamedTuple):
    """Effort and number of cases of a validation, and its expected seconds."""

    effort: Effort
    n_cases: int
    seconds: float


class TimePlan:
    """Expected durations of the parts of a run.

    Parameters
    ----------
    joint : time that previews and validation have taken
    """

    def __init__(
        self,
        clock: TrainingClock,
        data: TrainingData,
        timer: PredictionTimer,
        scans: PreparedScans,
        joint: JointTime,
    ) -> None:
        self._clock, self._data, self.timer = clock, data, timer
        self._scans, self.joint = scans, joint
        self._shapes: dict[str, tuple[int, ...]] = {}
        # Seconds of recent steps without and with unlabeled patches.
        self._step_times: tuple[deque[float], deque[float]] = (
            deque(maxlen=RECENT_STEPS),
            deque(maxlen=RECENT_STEPS),
        )
        self._stepping_s = self._end_s = 0.0
        self._end_begin: float | None = None

    def record_step(self, seconds: float, *, has_unlabeled: bool) -> None:
        """Record the duration of a step; the first one of a kind takes longer than others."""
        self._stepping_s += seconds
        times = self._step_times[has_unlabeled]
        if len(times) == 1 and seconds < times[0]:
            times.clear()
        times.append(seconds)

    def step_seconds(self, *, has_unlabeled: bool) -> float | None:
        """Return the expected duration of a step; ``None`` before the first one."""
        times, others = self._step_times[has_unlabeled], self._step_times[not has_unlabeled]
        if times:
            return sum(times) / len(times)
        if not others:
            return None
        ratio = _unlabeled_step_ratio(self._data.config)
        return sum(others) / len(others) * (ratio if has_unlabeled else 1.0 / ratio)

    def prepared_shape(self, case: str, model: TrainedModel) -> tuple[int, ...] | None:
        """Return the shape ``(D, H, W)`` of a prepared scan; ``None`` if it cannot be read."""
        if case not in self._shapes:
            with contextlib.suppress(DyconError, OSError, MemoryError):
                self._shapes[case] = self._scans.read(case, model.config)[1].shape[1:]
        return self._shapes.get(case)

    def plan_validation(self, model: TrainedModel, budget_s: float) -> ValidationPlan:
        """Choose the highest effort and the most cases that fit into some seconds."""
        cases = self._data.validation
        shape = self.prepared_shape(cases[0], model) if cases else None
        if shape is None:
            return ValidationPlan(Effort.ENSEMBLE, len(cases), 0.0)
        self.timer.measure(model)
        case_s = 0.0
        for effort in Effort:
            case_s = self.timer.estimate(model, shape, effort)
            if case_s * len(cases) <= budget_s:
                return ValidationPlan(effort, len(cases), case_s * len(cases))
        count = int(min(budget_s / case_s, len(cases)))
        return ValidationPlan(Effort.COARSE, count, count * case_s)

    def plan_running_validation(self, model: TrainedModel) -> ValidationPlan:
        """Plan a validation during the run as at its end, so that both can be compared."""
        limit_s = self._clock.time_limit_s
        if limit_s is None:
            return self.plan_validation(model, math.inf)
        budget_s = max(VALIDATION_FRACTION * limit_s, min(MIN_VALIDATION_S, 0.1 * limit_s))
        plan = self.plan_validation(model, budget_s)
        return plan if plan.n_cases else self.plan_validation(model, budget_s + self.grace_s)

    def plan_end(self, model: TrainedModel) -> None:
        """Measure what the end of the run takes, and reserve the time for it."""
        self.timer.measure(model)
        validation_s = self.plan_running_validation(model).seconds if self._data.validation else 0.0
        self.joint.reserved_s = validation_s
        self._end_s = validation_s + self.window_choice_seconds() + SAVING_S
        self._clock.reserve(self._end_s)

    @property
    def grace_s(self) -> float:
        """Seconds by which the validation at the end may exceed a time limit if nothing else fits.

        Half of what the whole end may exceed it by.
        """
        limit_s = self._clock.time_limit_s
        return 0.0 if limit_s is None else 0.5 * max(MAX_OVERRUN_FRACTION * limit_s, MAX_OVERRUN_S)

    def window_choice_seconds(self) -> float:
        """Return the seconds for the choice of windows; 0 if the time limit is too short for it."""
        one_s = self.timer.estimate_windows(1) * WINDOW_CHOICE_WINDOWS
        n_cases = min(len(self._data.labeled), MAX_CASES)
        limit_s = self._clock.time_limit_s
        if limit_s is None:
            return one_s * n_cases
        allowed_s = WINDOW_CHOICE_FRACTION * limit_s
        is_enough = one_s * min(n_cases, 2) <= allowed_s
        return min(one_s * n_cases, allowed_s) if is_enough else 0.0

    def registration_limit(self, *, is_resumed: bool) -> float:
        """Return the elapsed seconds at which registration ends; infinite without a limit."""
        limit_s = self._clock.time_limit_s
        if limit_s is None or is_resumed:
            return math.inf
        step_s = self.step_seconds(has_unlabeled=False) or 0.0
        steps_end_s = self._clock.elapsed() + self._clock.training_time_left() - MIN_STEPS * step_s
        return min(REGISTRATION_FRACTION * limit_s, steps_end_s)

    def is_training_over(self, step: int) -> bool:
        """Return whether another step would end closer to the end than its beginning is."""
        if self._clock.progress(step) >= 1.0:
            return True
        unlabeled = self._clock.progress(step) >= self._data.config.semi_supervised.start
        step_s = self.step_seconds(has_unlabeled=unlabeled and bool(self._data.unlabeled)) or 0.0
        return bool(step) and self._clock.training_time_left() < 0.5 * step_s

    def is_overdue(self) -> bool:
        """Return whether the run has exceeded its time limit too much to finish properly."""
        limit_s = self._clock.time_limit_s
        if limit_s is None:
            return False
        return self._clock.elapsed() > limit_s + 2 * self.grace_s

    def begin_end(self, seconds: float) -> None:
        """Begin the end of the run, which is expected to take some seconds."""
        self._end_s, self._end_begin = seconds, time.monotonic()

    def remaining(self, step: int) -> float | None:
        """Return the seconds until the run is over, with its end; ``None`` if unknown."""
        if self._end_begin is not None:
            seconds = max(self._end_s - (time.monotonic() - self._end_begin), 0.0)
        else:
            seconds = min(self._remaining_by_steps(step), self._clock.time_left())
        return round(seconds, 1) if math.isfinite(seconds) else None

    def _remaining_by_steps(self, step: int) -> float:
        labeled_s = self.step_seconds(has_unlabeled=False)
        unlabeled_s = self.step_seconds(has_unlabeled=True)
        if labeled_s is None or unlabeled_s is None:
            return math.inf
        if not self._data.unlabeled:
            unlabeled_s = labeled_s
        max_steps = self._clock.max_steps
        first_unlabeled = math.ceil(self._data.config.semi_supervised.start * max_steps)
        n_labeled = max(min(first_unlabeled, max_steps) - step, 0)
        n_unlabeled = max(max_steps - max(step, first_unlabeled), 0)
        overhead = min(self.joint.spent_s / max(self._stepping_s, 1e-6), MAX_JOINT_FRACTION)
        return (n_labeled * labeled_s + n_unlabeled * unlabeled_s) * (1 + overhead) + self._end_s


def _unlabeled_step_ratio(config: TrainConfig) -> float:
    """Return the duration of a step with unlabeled patches relative to one without.

    The student computes all patches forward and backward, the teacher the unlabeled ones forward.
    """
    ratio = config.batch.unlabeled_size / config.batch.labeled_size
    return 1.0 + ratio * (1.0 + FORWARD_COST)
