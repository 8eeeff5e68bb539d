"""The training loop of every method.

``Trainer.run`` yields events, and can be paused and stopped from outside through the run's
``control.json``. Batches, the teacher's noise and schedules are functions of seed, step and
progress, so no random state is saved: on a CPU, a resumed run is bit-identical to one that was
never interrupted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from typing import Literal

from napari_dycon.core.atomic import write_json
from napari_dycon.engine.atlas.training_set import build_atlas_training_set
from napari_dycon.engine.checkpoints.background_writer import CheckpointWriter
from napari_dycon.engine.checkpoints.training_state import (
    Snapshot,
    TrainingProgress,
    load_training_state,
    take_snapshot,
    write_snapshot,
)
from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.data.cases import UnlabeledCase
from napari_dycon.engine.data.loader import BatchLoader
from napari_dycon.engine.data.patches import Batch
from napari_dycon.engine.data.preparation import TrainingData
from napari_dycon.engine.data.prepared_scans import PreparedScans
from napari_dycon.engine.device import empty_cache, is_out_of_memory, reset_glibc_malloc
from napari_dycon.engine.inference.prediction_effort import PredictionTimer
from napari_dycon.engine.memory import MemoryPlan
from napari_dycon.engine.methods.schedules import adaptive_beta
from napari_dycon.engine.training.background_task import TaskRunner
from napari_dycon.engine.training.clock import TrainingClock
from napari_dycon.engine.training.control import RunControlReader
from napari_dycon.engine.training.failures import NonFiniteGuard
from napari_dycon.engine.training.finalize import (
    Finisher,
    RunSummary,
    finish_run,
    save_calibration,
)
from napari_dycon.engine.training.interval import JointTime
from napari_dycon.engine.training.preview import Previewer
from napari_dycon.engine.training.retry import retry_on_full_disk
from napari_dycon.engine.training.schedules import learning_rate_factor, rescale_progress
from napari_dycon.engine.training.setup import Components, Compute
from napari_dycon.engine.training.step_events import StepReporter, StepResult
from napari_dycon.engine.training.stepper import PartialUpdateError
from napari_dycon.engine.training.time_plan import TimePlan
from napari_dycon.engine.training.validation import Validator
from napari_dycon.project.prediction_store import PredictionStore
from napari_dycon.project.runs.events import (
    CheckpointEvent,
    Event,
    PausedEvent,
    Phase,
    PhaseEvent,
    RegistrationEvent,
    ResumedEvent,
    WarningEvent,
)
from napari_dycon.project.runs.metadata import Outcome
from napari_dycon.project.runs.run import Run

MIN_WARMUP_STEPS = 20  # over which the learning rate rises, however much time preparation took
MEASURED_STEPS = 2  # before registration, to find out how much time it may take


class Trainer:
    """Trains the networks of one run.

    Parameters
    ----------
    run : folder of the run
    data : training cases; ``data.config`` are the settings, which are adapted to memory
    scans, predictions : source of validation cases, and where previews are written
    reported_memory : memory plan known to the user; a change is reported and saved
    progress : progress that the run starts with
    clock : time of the run, started
    """

    def __init__(
        self,
        run: Run,
        data: TrainingData,
        components: Components,
        compute: Compute,
        *,
        scans: PreparedScans,
        predictions: PredictionStore,
        writer: CheckpointWriter,
        control: RunControlReader,
        reported_memory: MemoryPlan,
        progress: TrainingProgress,
        clock: TrainingClock,
    ) -> None:
        self._run, self._data, self._compute = run, data, compute
        self._model, self._optimizer = components.model, components.optimizer
        self._stepper, self._components = components.stepper, components
        self._writer, self._control, self._clock = writer, control, clock
        timer = PredictionTimer(compute.device, compute.dtype)
        self._plan = plan = TimePlan(clock, data, timer, scans, JointTime())
        self._tasks = tasks = TaskRunner(control, self._pause)
        self._validator = Validator(scans, data, compute, clock, plan, tasks)
        self._previewer = Previewer(
            run.id, data.config, compute, scans, predictions, control, clock, plan, tasks
        )
        self._finisher = Finisher(run, data, compute, clock, plan, tasks, self._validator)
        self._reported_memory = reported_memory
        self._step = progress.step
        self._guard = NonFiniteGuard(progress.skipped_steps)
        self._batches = BatchLoader(data, compute.device)
        self._no_unlabeled: list[UnlabeledCase] = []
        self._reporter = StepReporter(clock, plan)
        self._saved_at = time.monotonic()

    @property
    def _config(self) -> TrainConfig:
        return self._data.config

    def run(self) -> Iterator[Event]:
        """Train until the run is finished or stopped; yields events.

        Raises
        ------
        EngineError
            Too many steps in a row gave no finite loss.
        MemoryError
            Memory ran out even for the smallest steps.
        """
        self._model.student.train()
        self._model.teacher.train()
        action: Outcome | Literal["step"] = "step"
        is_resumed = self._step > 0
        if self._clock.is_limited and not is_resumed:
            action = yield from self._train(MEASURED_STEPS)
        if action == "step":
            yield from self._build_atlas_training_set(is_resumed)
            self._fit_unlabeled_step_to_memory()
            action = yield from self._train()
        assert action != "step"
        yield from self._finish(action)

    def _train(
        self, last_step: int | None = None
    ) -> Generator[Event, None, Outcome | Literal["step"]]:
        """Take steps up to a number or to the end of the run; return what the run does next."""
        yield self._describe("training")
        while True:
            action = self._choose_action()
            if action == "pause":
                yield from self._pause()
                yield self._describe("training")
                continue
            if action != "step" or self._step == last_step:
                return action
            begin = time.monotonic()
            result = yield from self._take_step()
            if result is None:  # memory ran out; the next step is smaller
                continue
            self._plan.record_step(time.monotonic() - begin, has_unlabeled=result.has_unlabeled)
            yield from self._reporter.report(self._step, self._config, result)
            yield from self._save_periodically()
            yield from self._previewer.preview_if_due(self._model, self._step)
            yield from self._validator.validate_if_due(self._model, self._step)
            if self._clock.is_limited:
                self._plan.plan_end(self._model)

    def _describe(self, phase: Phase, done: int = 0, total: int = 0) -> Event:
        """Return the event that tells what the run is doing."""
        remaining_s = self._plan.remaining(self._step)
        return PhaseEvent(phase=phase, done=done, total=total, remaining_s=remaining_s)

    def _choose_action(self) -> Outcome | Literal["pause", "step"]:
        """Return what the run does next: pause, take a step, or end with an outcome."""
        if self._control.stop_requested():
            return "stopped"
        if self._control.pause_requested():
            return "pause"
        return "finished" if self._plan.is_training_over(self._step) else "step"

    def _build_atlas_training_set(self, is_resumed: bool) -> Iterator[Event]:
        """Register labeled scans to unlabeled ones and fuse pseudo-labels."""
        config, data = self._config, self._data
        is_over = self._clock.progress(self._step) >= 1.0
        if is_over or not (config.atlas.max_registration_pairs and data.unlabeled):
            return
        max_elapsed_s = self._plan.registration_limit(is_resumed=is_resumed)
        events = build_atlas_training_set(
            data,
            self._run.registrations_folder,
            self._compute.device,
            is_resumed=is_resumed,
            should_stop=self._tasks.should_end,
            seconds_left=lambda: max_elapsed_s - self._clock.elapsed(),
        )
        # Repeating the work of an interrupted run does not count towards its time.
        with self._clock.paused() if is_resumed else contextlib.nullcontext():
            yield from report_registration(self._tasks, events, self._describe)
        if self._step and not is_resumed:  # the loader was made without the new cases
            self._batches.close()
            self._batches = BatchLoader(data, self._compute.device)

    def _fit_unlabeled_step_to_memory(self) -> None:
        """Try a step with unlabeled scans on a GPU, and reduce memory until one fits.

        Semi-supervised steps may start late in a run and take twice the memory. If it does not
        suffice, this must be detected at the start, not hours later.
        """
        device, start = self._compute.device, self._config.semi_supervised.start
        joins_later = self._data.unlabeled and self._clock.progress(self._step) < start < 1.0
        while device.type != "cpu" and joins_later and not self._control.stop_requested():
            if is_step_possible(
                lambda: self._batches.load_single(self._step, self._data.unlabeled),
                lambda batch: self._stepper.dry_run(self._config, self._components.method, batch),
            ):
                break
            self._reduce_memory()
        empty_cache(device)

    def _take_step(self) -> Generator[Event, None, StepResult | None]:
        """Take one optimization step; returns ``None`` if memory ran out for it."""
        result, is_half_updated = self._try_step()
        if result is None:  # by now the error and the tensors that it referred to are freed
            self._reduce_memory()
            if is_half_updated:
                yield from self._restore_checkpoint()
            return None
        yield from self._guard.count(self._stepper.read_step_outcomes())
        self._step += 1
        return result

    def _try_step(self) -> tuple[StepResult | None, bool]:
        """Return the result of a step, ``None`` without memory, and whether weights are invalid."""
        config, progress = self._config, self._clock.progress(self._step)
        uses_unlabeled = progress >= config.semi_supervised.start
        rate = config.optimizer.learning_rate * learning_rate_factor(
            progress, config.optimizer.warmup_fraction
        )
        # Registration may have used up the time of the warm-up.
        rate *= min(1.0, (self._step + 1) / MIN_WARMUP_STEPS)
        unlabeled_progress = rescale_progress(progress, config.semi_supervised.start)
        try:
            batch = self._batches.get(
                self._step, self._data.unlabeled if uses_unlabeled else self._no_unlabeled
            )
            has_unlabeled = batch.unlabeled is not None
            method = self._components.method if has_unlabeled else self._components.supervised
            loss_terms, loss = self._stepper.step(
                self._step, config, method, batch, unlabeled_progress, rate
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None, isinstance(error, PartialUpdateError)
        beta = adaptive_beta(unlabeled_progress, config.uncl.beta_max, config.uncl.beta_min)
        return StepResult(loss, loss_terms, beta, rate, has_unlabeled), False

    def _reduce_memory(self) -> None:
        """Reduce the memory of further steps after memory ran out."""
        device = self._compute.device
        if device.type == "cpu":
            reset_glibc_malloc()
        self._batches.close()  # also frees the scans on the device
        smaller = MemoryPlan.from_config(self._config).reduce(self._config)
        if smaller is None:
            raise MemoryError("out of memory for the smallest steps")
        self._data.config = smaller.apply(self._config)
        self._model = dataclasses.replace(self._model, config=self._config)
        self._batches = BatchLoader(self._data, device)
        empty_cache(device)

    def _restore_checkpoint(self) -> Iterator[Event]:
        """Return to the last checkpoint after an update that failed part way."""
        yield from self._writer.poll_events(wait=True)
        if not self._run.state_path.exists():
            raise MemoryError("out of memory before the first checkpoint")
        self._stepper.read_step_outcomes(wait=True)
        progress = load_training_state(self._run.state_path, self._model, self._optimizer)
        self._stepper.restore_loss_scale(progress.loss_scale)
        self._guard.restore(progress.skipped_steps)
        self._step = progress.step
        yield ResumedEvent(step=self._step, resumed_from_step=self._step)

    def _save_periodically(self) -> Iterator[Event]:
        """Write a checkpoint when one is due, and at once after a change of the memory plan."""
        yield from self._writer.poll_events()
        now = time.monotonic()
        plan = MemoryPlan.from_config(self._config)
        if plan != self._reported_memory:
            message = plan.describe_change(self._reported_memory, self._compute.device.type)
            yield WarningEvent(message=message)
            self._reported_memory, self._saved_at = plan, now
            yield from self._start_checkpoint()
            write_json(self._run.config_path, self._config.to_dict())
        elif now - self._saved_at >= self._config.intervals.checkpoint_s:
            self._saved_at = now
            yield from self._start_checkpoint()

    def _pause(self) -> Iterator[Event]:
        """Wait until the user resumes or stops the run, with a checkpoint written."""
        yield PausedEvent(step=self._step)
        with self._clock.paused():
            if self._step:
                yield from self._start_checkpoint()
                yield from self._writer.poll_events(wait=True)
            self._control.wait_while_paused()
        yield ResumedEvent(step=self._step)

    def _start_checkpoint(self) -> Iterator[Event]:
        """Start to write a checkpoint in the background, after the previous one."""
        yield from self._writer.poll_events(wait=True)
        yield from self._guard.count(self._stepper.read_step_outcomes(wait=True))
        try:
            self._writer.start(self._take_snapshot(), self._step)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            message = f"No checkpoint at step {self._step}: memory ran out."
            yield WarningEvent(message=message)

    def _take_snapshot(self) -> Snapshot:
        scale = self._stepper.loss_scale
        progress = TrainingProgress(
            step=self._step,
            elapsed_s=self._clock.elapsed(),
            skipped_steps=self._guard.total,
            precision={self._compute.device.type: self._compute.precision},
            memory=dataclasses.asdict(MemoryPlan.from_config(self._config)),
            loss_scale=scale and scale.to_json(),
        )
        return take_snapshot(self._model, self._optimizer, progress)

    def _finish(self, outcome: Outcome) -> Iterator[Event]:
        """Save and calibrate the model, and write the metrics of the run."""
        yield from self._writer.poll_events(wait=True)
        yield from self._guard.count(self._stepper.read_step_outcomes(wait=True))
        run, step = self._run, self._step
        yield from self._finisher.begin(self._model, step, outcome)
        if step:  # weights of an untrained network must not be used for prediction
            yield from retry_on_full_disk(
                lambda: write_snapshot(self._take_snapshot(), run.weights_path, run.state_path)
            )
            yield CheckpointEvent(step=step)
        self._batches.close()  # on some systems open files cannot be removed
        shutil.rmtree(run.registrations_folder, ignore_errors=True)  # large; can be made again
        if step:
            self._model = yield from self._finisher.calibrate(self._model, step)
            yield from save_calibration(run, self._model, step)
        summary = RunSummary(
            outcome, step, self._clock.elapsed(), self._guard.total, self._validator.result
        )
        yield from finish_run(run, summary, self._model, self._data)


def is_step_possible(load: Callable[[], Batch], dry_run: Callable[[Batch], None]) -> bool:
    """Check whether memory suffices for a step with a batch."""
    try:
        dry_run(load())
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def report_registration(
    tasks: TaskRunner, events: Iterator[Event], describe: Callable[[Phase, int, int], Event]
) -> Iterator[Event]:
    """Register scans in the background; yields the events and those of the phase."""
    last = RegistrationEvent()

    def describe_registration() -> Event:
        return describe("aligning", last.done, last.total)

    yield describe_registration()
    for event in tasks.iterate(events, describe_registration):
        yield event
        if isinstance(event, RegistrationEvent):
            last = event
            yield describe_registration()
