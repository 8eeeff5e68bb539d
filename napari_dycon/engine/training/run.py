"""Training of a run on a project, as a generator of events."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from pydantic import ValidationError

from napari_dycon.core.atomic import write_json
from napari_dycon.core.cleanup import clean_project
from napari_dycon.engine.checkpoints.background_writer import CheckpointWriter
from napari_dycon.engine.checkpoints.training_state import TrainingProgress, read_training_progress
from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.data.planning import plan_network
from napari_dycon.engine.data.preparation import TrainingData, prepare_training_data
from napari_dycon.engine.data.prepared_scans import PreparedScans
from napari_dycon.engine.data.splits import (
    CaseSplit,
    cases_trained_on,
    load_case_split,
    split_cases,
)
from napari_dycon.engine.device import choose_device
from napari_dycon.engine.memory import get_free_bytes
from napari_dycon.engine.training.clock import TrainingClock
from napari_dycon.engine.training.control import RunControlReader, pause
from napari_dycon.engine.training.failures import to_engine_error
from napari_dycon.engine.training.initialization import InitialWeights
from napari_dycon.engine.training.setup import (
    Compute,
    build_components,
    resume_or_initialize,
    set_up_compute,
    set_up_memory,
)
from napari_dycon.engine.training.trainer import Trainer
from napari_dycon.errors import DyconError
from napari_dycon.project.runs.event_log import EventLog
from napari_dycon.project.runs.events import (
    CheckpointEvent,
    Event,
    FailedEvent,
    Phase,
    PhaseEvent,
    PreparingEvent,
    StartedEvent,
    StoppedEvent,
    WarningEvent,
)
from napari_dycon.project.runs.run_log import RunLog

if TYPE_CHECKING:
    from napari_dycon.project.runs.run import Run
    from napari_dycon.project.store import Project


def train(
    project: Project, config: TrainConfig, run: Run | None = None, *, elapsed_s: float = 0.0
) -> Iterator[Event]:
    """Train on a project and yield events; each is also written to ``events.jsonl``.

    Parameters
    ----------
    project : project with labeled cases, and unlabeled ones for semi-supervised methods
    config : settings; unset ones are planned from the data
    run : existing run to start or to resume; by default a new one is created
    elapsed_s : seconds since the run was requested, which count towards the time limit of a new run

    Raises
    ------
    UserError
        The user can correct it: no labeled case, unknown device, ...
    EngineError
        Training failed: out of memory, a loss that is not finite. The last checkpoint stays valid.
    """
    begin = time.monotonic() - elapsed_s
    project.require_writable()
    if run is None:
        split_cases(project, config)  # raises before a run folder is created
    device, _ = choose_device(config.device)
    if run is None:
        plan_network(config, device.type)  # raises if the patch does not fit the network
    run = run or project.runs.create(config.method, config.to_dict())
    clean_project(project.path)
    log = EventLog(run, RunLog.for_project(run, project))
    has_checkpoint = run.has_weights  # asked now: the folder may be what is missing later
    writer = CheckpointWriter(run.weights_path, run.state_path)
    try:
        with contextlib.closing(writer):
            for event in _train_run(project, config, run, writer, begin):
                has_checkpoint = has_checkpoint or isinstance(event, CheckpointEvent)
                event = event.model_copy(update={"time": _now()})
                log.write(event)
                yield event
    except DyconError as error:
        log.write(_build_failed_event(error))
        raise
    except (RuntimeError, MemoryError, OSError, ValidationError) as error:
        # torch raises RuntimeError for lack of memory and for failures of the driver; values beyond
        # the limits of an event raise ValidationError.
        engine_error = to_engine_error(error, device, has_checkpoint=has_checkpoint)
        log.write(_build_failed_event(engine_error))
        raise engine_error from error


def _train_run(
    project: Project, config: TrainConfig, run: Run, writer: CheckpointWriter, begin: float
) -> Iterator[Event]:
    """Prepare the data of a run and train on it. The trainer does not know the project."""
    clock = TrainingClock(config.steps, config.time_limit, time.monotonic() - begin)
    progress = read_training_progress(run.state_path) if run.state_path.exists() else None
    compute = set_up_compute(config, progress)
    card_bytes = get_free_bytes(compute.device) if compute.device.type == "cuda" else None
    frozen_split = load_case_split(run.state_folder) if progress else None
    split = frozen_split or split_cases(project, config)
    is_resumed = frozen_split is not None
    yield _build_started_event(run, config, compute, split, progress)
    if progress:
        clock.set_elapsed(progress.elapsed_s)
    yield _describe("starting", clock)

    control = RunControlReader(run)
    preparation = prepare_training_data(
        project, config, compute.device.type, run.state_folder, split, is_resumed, card_bytes
    )
    # A resumed run that is stopped now still ends with its metrics.
    data = yield from _prepare_unless_stopped(
        preparation, control, clock, obeys_stop=not is_resumed
    )
    if data is None:
        yield StoppedEvent(step=0, elapsed_s=0.0, skipped=0, dice=None)
        return
    yield _describe("starting", clock)
    initial = None if progress else _find_initial_weights(project, config.init_from)

    reported_memory = set_up_memory(data, compute.device, progress)
    write_json(run.config_path, data.config.to_dict())
    for warning in data.warnings:
        yield WarningEvent(message=warning)
    components = build_components(data, compute)
    start = yield from resume_or_initialize(
        components, run.state_path, is_resumed=progress is not None, initial=initial, data=data
    )
    if start.step:  # preparing the scans again does not count
        clock.set_elapsed(start.elapsed_s)
    yield from Trainer(
        run,
        data,
        components,
        compute,
        scans=PreparedScans(project),
        predictions=project.predictions,
        writer=writer,
        control=control,
        reported_memory=reported_memory,
        progress=start,
        clock=clock,
    ).run()


def _prepare_unless_stopped(
    preparation: Generator[Event, None, TrainingData],
    control: RunControlReader,
    clock: TrainingClock,
    *,
    obeys_stop: bool,
) -> Generator[Event, None, TrainingData | None]:
    """Yield the events of the preparation and return its data, ``None`` if it was stopped."""
    with contextlib.closing(preparation):
        while True:
            try:
                event = next(preparation)
            except StopIteration as end:
                data: TrainingData = end.value
                return None if obeys_stop and control.stop_requested() else data
            yield event
            if isinstance(event, PreparingEvent):
                yield _describe("preparing", clock, event.done, event.total)
            if control.pause_requested():
                yield from pause(control, clock, step=0)
            if obeys_stop and control.stop_requested():
                return None


def _describe(phase: Phase, clock: TrainingClock, done: int = 0, total: int = 0) -> Event:
    """Return the event that tells what the run is doing before it trains."""
    remaining_s = round(clock.time_left(), 1) if clock.is_limited else None
    return PhaseEvent(phase=phase, done=done, total=total, remaining_s=remaining_s)


def _find_initial_weights(project: Project, run_id: str | None) -> InitialWeights | None:
    """Find the weights of an earlier run; ``None`` if none is asked for."""
    if not run_id:
        return None
    trained_cases = frozenset(cases_trained_on(project, run_id))
    return InitialWeights(run_id, project.runs.get(run_id).weights_path, trained_cases)


def _build_started_event(
    run: Run,
    config: TrainConfig,
    compute: Compute,
    split: CaseSplit,
    progress: TrainingProgress | None,
) -> Event:
    return StartedEvent(
        run=run.id,
        method=config.method,
        preset=config.preset,
        device=compute.device.type,
        device_reason=compute.reason,
        precision=compute.precision,
        labeled=len(split.labeled),
        unlabeled=len(split.unlabeled),
        validation=len(split.validation),
        steps=config.steps,
        time_limit=config.time_limit,
        pid=os.getpid(),
        resumed_from_step=progress.step if progress else 0,
    )


def _build_failed_event(error: DyconError) -> FailedEvent:
    return FailedEvent(message=str(error), time=_now())


def _now() -> float:
    """Seconds since the epoch."""
    return round(time.time(), 3)
