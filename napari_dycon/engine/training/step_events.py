"""Events that report optimization steps: losses, schedules, and when unlabeled scans join."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.training.clock import TrainingClock
from napari_dycon.engine.training.time_plan import TimePlan
from napari_dycon.project.runs.events import MAX_NUMBER, Event, SemiSupervisedEvent, StepEvent

STEP_EVENT_INTERVAL_S = 0.5


@dataclass(frozen=True)
class StepResult:
    """Losses of one optimization step, and the values of the schedules it was taken with."""

    loss: torch.Tensor
    loss_terms: dict[str, torch.Tensor]
    beta: float
    learning_rate: float
    has_unlabeled: bool


class StepReporter:
    """Reports steps, a few times a second at most, and the first one with unlabeled scans."""

    def __init__(self, clock: TrainingClock, plan: TimePlan) -> None:
        self._clock, self._plan = clock, plan
        self._has_used_unlabeled = False
        self._reported_at = time.monotonic()

    def report(self, step: int, config: TrainConfig, result: StepResult) -> Iterator[Event]:
        """Yield the events of a step, if any are due."""
        if result.has_unlabeled and not self._has_used_unlabeled:
            self._has_used_unlabeled = True
            yield SemiSupervisedEvent(step=step, progress=self._clock.progress(step))
        now = time.monotonic()
        if step > 1 and now - self._reported_at < STEP_EVENT_INTERVAL_S:
            return
        self._reported_at = now
        yield build_step_event(step, config, self._clock, result, self._plan.remaining(step))


def build_step_event(
    step: int,
    config: TrainConfig,
    clock: TrainingClock,
    result: StepResult,
    remaining_s: float | None,
) -> StepEvent:
    """Build the event with the losses of a step and the remaining time of the run."""
    progress, elapsed_s = clock.progress(step), clock.elapsed()
    return StepEvent(
        step=step,
        steps=config.steps,
        progress=round(progress, 5),
        loss=_to_json_number(result.loss),
        loss_terms={name: _to_json_number(term) for name, term in result.loss_terms.items()},
        beta=round(result.beta, 4),
        learning_rate=result.learning_rate,
        elapsed_s=round(elapsed_s, 2),
        remaining_s=remaining_s,
    )


def _to_json_number(value: torch.Tensor) -> float | None:
    """Return a rounded number; ``None`` if it is not finite, or too large for an event."""
    number = float(value.detach())
    return round(number, 6) if abs(number) <= MAX_NUMBER else None
