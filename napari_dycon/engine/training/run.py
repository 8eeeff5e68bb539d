"""The one training loop, for every method, read from top to bottom.

``train`` is a generator of events (see ``events.py``): it can be paused, stopped and looked at from
outside through the run's ``control.json``, and it leaves checkpoints from which an interrupted run
goes on, on a CPU to the bit. Batches, teacher noise and schedules are functions of seed, step and
progress, so there is no random state to save.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import os
import shutil
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from napari_dycon.core.atomic import write_json
from napari_dycon.core.cleanup import clean_project
from napari_dycon.engine.atlas.training_set import build_atlas_training_set
from napari_dycon.engine.checkpoints.background_writer import CheckpointWriter
from napari_dycon.engine.checkpoints.model_file import TrainedModel, save_weights
from napari_dycon.engine.checkpoints.training_state import (
    Snapshot,
    load_training_state,
    read_training_progress,
    take_snapshot,
    write_snapshot,
)
from napari_dycon.engine.checkpoints.transfer import load_matching_weights
from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.data.cases import UnlabeledCase
from napari_dycon.engine.data.loader import BatchLoader
from napari_dycon.engine.data.planning import plan_network
from napari_dycon.engine.data.preparation import TrainingData, prepare_training_data
from napari_dycon.engine.data.splits import cases_trained_on, load_case_split, split_cases
from napari_dycon.engine.device import (
    choose_device,
    choose_precision,
    empty_cache,
    is_out_of_memory,
    reset_glibc_malloc,
    tune_for_training,
    tune_glibc_malloc,
)
from napari_dycon.engine.inference.temperature_scaling import CalibrationSample, fit_temperature
from napari_dycon.engine.inference.window_choice import choose_window_side
from napari_dycon.engine.memory import MemoryPlan, fit_to_memory, get_free_bytes
from napari_dycon.engine.methods import build_method
from napari_dycon.engine.methods.schedules import adaptive_beta
from napari_dycon.engine.methods.supervised import Supervised
from napari_dycon.engine.network import build_network
from napari_dycon.engine.training.control import RunControlReader
from napari_dycon.engine.training.interval import Interval
from napari_dycon.engine.training.optimizer import allocate_state, build_optimizer
from napari_dycon.engine.training.prepared_scans import PreparedScans
from napari_dycon.engine.training.preview import preview
from napari_dycon.engine.training.retry import retry_on_full_disk
from napari_dycon.engine.training.schedules import learning_rate_factor, rescale_progress
from napari_dycon.engine.training.stepper import PartialUpdateError, Stepper
from napari_dycon.engine.training.validation import validate, warn_about_skipped_cases
from napari_dycon.errors import DyconError, EngineError
from napari_dycon.project.runs.events import Event, EventLog

if TYPE_CHECKING:
    from napari_dycon.project.runs.run import Run
    from napari_dycon.project.store import Project

STEP_EVENT_INTERVAL_S = 0.5  # seconds
MIN_WARMUP_STEPS = 20  # over which the learning rate rises at least
MAX_NONFINITE_STEPS = 50  # non-finite steps in a row after which a run has failed
MIN_USEFUL_STEPS = 100  # fewer than these teach next to nothing
MIN_MATCHING_FRACTION = (
    0.75  # share of tensors taken from another run: more with other classes alone
)
MIN_PREVIEW_STEP = 10  # steps; before, a picture says nothing
MAX_PREPARATION_FRACTION = 0.1  # share of a time limit that preparing scans may use up
REGISTRATION_TIME_FRACTION = 0.2  # of a time limit after which no more scans are deformed
VALIDATION_TIME_FRACTION, PREVIEW_TIME_FRACTION = 0.015, 0.0125  # of a run's time, at most


def train(project: Project, config: TrainConfig, run: Run | None = None) -> Iterator[Event]:
    """Train on a project and yield events; every one is also written to ``events.jsonl``.

    Parameters
    ----------
    project : whose labeled and unlabeled cases are learned from
    config : settings; what they leave open is planned from the data
    run : an existing run to start or to resume; a new one is made otherwise

    Raises
    ------
    UserError
        What a person can mend: no labeled case, unknown device, ...
    EngineError
        What failed on the way: out of memory, numbers that are not finite. The last checkpoint
        stays valid.
    """
    project.require_writable()
    if run is None:
        split_cases(project, config)  # refuse before a run folder appears
    device, _ = choose_device(config.device)
    if run is None:
        plan_network(config, device.type)  # likewise a patch that does not fit
    run = run or project.runs.create(config.method, config.to_dict())
    clean_project(project.path)
    log = EventLog(run)
    has_checkpoint = run.has_weights  # asked now: its folder may be what goes away
    writer = CheckpointWriter(run.weights_path, run.state_folder / "state.safetensors")
    try:
        with contextlib.closing(writer):
            for event in _loop(project, config, run, writer):
                has_checkpoint = has_checkpoint or event["event"] == "checkpoint"
                event["time"] = round(time.time(), 3)
                log.write(event)
                yield event
    except DyconError as error:
        log.write(_build_failed_event(error))
        raise
    except (RuntimeError, MemoryError, OSError) as error:
        # RuntimeError is what torch raises for lack of memory and for driver trouble.
        engine_error = _to_engine_error(error, has_checkpoint, device)
        log.write(_build_failed_event(engine_error))
        raise engine_error from error


def _loop(
    project: Project, config: TrainConfig, run: Run, writer: CheckpointWriter
) -> Iterator[Event]:
    begin = time.monotonic()
    device, reason = choose_device(config.device)
    state_path = run.state_folder / "state.safetensors"
    loop = read_training_progress(state_path) if state_path.exists() else {}
    # A timed trial may come out differently the next time, and the run would not be the same.
    known = loop.get("precision", {}).get(device.type, "auto")
    wanted = known if config.precision == "auto" else config.precision
    dtype = choose_precision(wanted, device)
    tune_for_training(device)
    if device.type == "cpu":
        reset_glibc_malloc()
    card_bytes = get_free_bytes(device) if device.type == "cuda" else None
    borrowed = run.state_folder / "borrowed"
    frozen = load_case_split(run.state_folder) if loop else None
    found = frozen or split_cases(project, config)
    yield {
        "event": "started",
        "run": run.id,
        "method": config.method,
        "preset": config.preset,
        "device": device.type,
        "device_reason": reason,
        "precision": str(dtype).removeprefix("torch."),
        "labeled": len(found.labeled),
        "unlabeled": len(found.unlabeled),
        "validation": len(found.validation),
        "steps": config.steps,
        "time_limit": config.time_limit,
        "pid": os.getpid(),
        "from_step": loop.get("step", 0),
    }
    control = RunControlReader(run)
    data: TrainingData | None = None
    resumed = frozen is not None
    for item in prepare_training_data(
        project, config, device.type, run.state_folder, found, resumed, card_bytes
    ):
        if isinstance(item, TrainingData):
            data = item
        else:
            yield item
        if frozen is None and control.stop_requested():  # a resumed run has something to end with
            yield {"event": "stopped", "step": 0, "elapsed": 0.0, "skipped": 0, "dice": None}
            return
    assert data is not None
    planned = MemoryPlan.from_config(data.config)
    memory = MemoryPlan.from_json(loop.get("memory")) or planned
    config = memory.apply(data.config)
    classes = len(data.class_values) + 1
    if device.type == "cpu" and (free := get_free_bytes(device)) is not None:
        # The system ends a process that takes too much: there is no error to learn it from.
        config = fit_to_memory(
            config,
            free,
            channels=data.channels,
            classes=classes,
            has_unlabeled=bool(data.unlabeled),
        )
    if device.type == "cpu" and config == memory.apply(data.config):
        tune_glibc_malloc()
    data.config = config
    unreported = MemoryPlan.from_config(config) != memory  # whether a warning of it is due
    write_json(run.config_path, config.to_dict())
    for warning in data.warnings:
        yield {"event": "warning", "message": warning}

    # Networks: the teacher is the student's moving average and never trained itself.
    torch.manual_seed(config.seed)
    student = build_network(config, data.channels, classes).to(device)
    if device.type in ("cpu", "cuda"):  # measured on a CPU: a step takes 15 to 25 % less
        student.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    teacher = copy.deepcopy(student).requires_grad_(False)
    model = TrainedModel(student, teacher, config, data.class_values, data.channels)
    optimizer = build_optimizer(config, student)
    allocate_state(optimizer)
    stepper = Stepper(student, teacher, optimizer, device, dtype)
    where = device, dtype
    method, without_unlabeled = build_method(config), Supervised(config)
    step, spent, skipped_total = 0, 0.0, 0
    if loop:
        loop = load_training_state(state_path, model, optimizer)
        step, spent, skipped_total = loop["step"], loop["elapsed"], loop["skipped"]
        stepper.restore_loss_scale(loop.get("loss_scale"))
    elif config.init_from:
        source = project.runs.get(config.init_from).weights_path
        fitted = load_matching_weights(model, source)
        if fitted < MIN_MATCHING_FRACTION:
            rest = f"{fitted:.0%} of it could be taken, the rest" if fitted else "this run"
            yield {
                "event": "warning",
                "message": f"Run {config.init_from} has another kind of network; {rest} starts "
                "from scratch. Start from a run with the same filters to keep what it learned.",
            }
        seen = cases_trained_on(project, config.init_from)
        if both := sorted(seen & set(data.validation)):
            yield {
                "event": "warning",
                "message": f"Run {config.init_from}, or one that it started from, learned from "
                f"{len(both)} case(s) that are kept for validation now ({both[0]}); their Dice "
                "looks better than it is.",
            }
    batches = BatchLoader(data, device)
    nobody: list[UnlabeledCase] = []
    scans = PreparedScans(project)
    last_validation = {"dice": {}, "mean": None}  # type: dict[str, object]
    said = saved = time.monotonic()
    validations = Interval(config.intervals.validation_s, VALIDATION_TIME_FRACTION)
    previews = Interval(config.intervals.preview_s, PREVIEW_TIME_FRACTION, first_delay_s=0.0)
    skipped = 0
    outcome = ""
    # Preparing counts towards the time limit, unless it would leave little of it for learning.
    prepared = time.monotonic() - begin
    if config.time_limit and not step:
        spent = min(prepared, MAX_PREPARATION_FRACTION * config.time_limit)
    begin = time.monotonic()

    def elapsed() -> float:
        return spent + time.monotonic() - begin

    def progress() -> float:
        by_time = elapsed() / config.time_limit if config.time_limit else 0.0
        return min(max(step / config.steps, by_time), 1.0)

    def pauses() -> Iterator[Event]:
        nonlocal begin
        if not control.pause_requested():
            return
        yield {"event": "paused", "step": step}
        waited = time.monotonic()
        if step:
            yield from save_if_possible()
            yield from writer.poll_events(wait=True)
        while control.pause_requested():
            control.wait()
        begin += time.monotonic() - waited
        yield {"event": "resumed", "step": step}

    def score(samples: list[CalibrationSample] | None = None) -> Iterator[Event]:
        nonlocal last_validation
        before = last_validation.get("missed")
        last_validation = validate(project, scans, data, model, *where, samples)
        yield {"event": "validation", "step": step, "progress": progress(), **last_validation}
        if last_validation.get("missed") != before:
            yield from warn_about_skipped_cases(last_validation)

    def snapshot() -> Snapshot:
        loop = {
            "step": step,
            "elapsed": elapsed(),
            "skipped": skipped_total,
            "precision": {device.type: str(dtype).removeprefix("torch.")},
            "memory": dataclasses.asdict(MemoryPlan.from_config(config)),
            "loss_scale": stepper.loss_scale and stepper.loss_scale.to_json(),
        }
        return take_snapshot(model, step, optimizer, loop)

    def save_if_possible() -> Iterator[Event]:
        yield from writer.poll_events(wait=True)  # one at a time
        yield from count_skipped(wait=True)
        try:
            writer.start(snapshot(), step)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            yield {"event": "warning", "message": f"No checkpoint at step {step}: memory ran out."}

    def count_skipped(*, wait: bool = False) -> Iterator[Event]:
        """Report the steps that gave no finite loss, as far as the device has told of them."""
        nonlocal skipped, skipped_total
        for number, finite in stepper.read_step_outcomes(wait=wait):
            if finite:
                skipped = 0
                continue
            skipped, skipped_total = skipped + 1, skipped_total + 1
            yield {
                "event": "warning",
                "message": f"Step {number + 1} gave a loss that is not a finite number and was "
                f"skipped ({skipped_total} so far).",
            }
            if skipped >= MAX_NONFINITE_STEPS:
                raise EngineError(
                    f"{skipped} steps in a row gave no finite loss. Lower the learning rate, or "
                    "check the scans for extreme values. The last checkpoint is kept."
                )

    def lower_memory() -> None:
        """Make the steps smaller after memory ran out for one; the next one tries it."""
        nonlocal config, model, batches, unreported
        if device.type == "cpu":
            reset_glibc_malloc()
        batches.close()  # with what it moved to the device
        smaller = MemoryPlan.from_config(config).reduce(config)
        if smaller is None:
            raise MemoryError("out of memory for the smallest steps")
        config = data.config = smaller.apply(config)
        model = dataclasses.replace(model, config=config)
        batches = BatchLoader(data, device)
        empty_cache(device)
        unreported = True

    def report_memory() -> Iterator[Event]:
        """Say what was made smaller, once a step was taken with it, and keep it for a resume."""
        nonlocal unreported, memory
        unreported = False
        now = MemoryPlan.from_config(config)
        yield {"event": "warning", "message": now.describe_change(memory, device.type)}
        memory = now
        yield from save_if_possible()
        write_json(run.config_path, config.to_dict())

    def restore_checkpoint() -> Iterator[Event]:
        """Go back to the last checkpoint after an update that failed half way."""
        nonlocal step, skipped, skipped_total
        yield from writer.poll_events(wait=True)
        if not state_path.exists():
            raise MemoryError("out of memory before the first checkpoint")
        stepper.read_step_outcomes(wait=True)
        loop = load_training_state(state_path, model, optimizer)
        step, skipped, skipped_total = loop["step"], 0, loop["skipped"]
        stepper.restore_loss_scale(loop.get("loss_scale"))
        yield {"event": "resumed", "step": step, "from_step": step}

    if config.atlas.max_registration_pairs and data.unlabeled and progress() < 1.0:
        until = REGISTRATION_TIME_FRACTION * (config.time_limit or math.inf)

        def enough() -> bool:
            return control.stop_requested() or (not step and elapsed() > until)

        for event in build_atlas_training_set(
            data, borrowed, device, is_resumed=step > 0, should_stop=enough
        ):
            yield event
            yield from pauses()
        if step:  # as preparing, making again what the run had costs it no time
            begin = time.monotonic()

    student.train()
    teacher.train()
    comes = data.unlabeled and progress() < config.semi_supervised.start < 1.0
    while device.type != "cpu" and comes and not control.stop_requested():
        # Scans without labels take twice the memory: if it does not suffice, then now and not at
        # the end of a night.
        try:
            stepper.dry_run(config, method, batches.load_single(step, data.unlabeled))
            break
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        lower_memory()
    empty_cache(device)
    while not outcome:
        # What the person asks for
        if control.stop_requested():
            outcome = "stopped"
            break
        if control.pause_requested():
            yield from pauses()
            continue
        done = progress()
        if done >= 1.0:
            outcome = "finished"
            break

        # One step
        started = done >= config.semi_supervised.start
        rate = config.optimizer.learning_rate * learning_rate_factor(
            done, config.optimizer.warmup_fraction
        )
        rate *= min(
            1.0, (step + 1) / MIN_WARMUP_STEPS
        )  # matching shapes may have used up the warm-up
        unlabeled_part = rescale_progress(done, config.semi_supervised.start)
        failed = half_updated = False
        try:
            batch = batches.get(step, data.unlabeled if started else nobody)
            chosen = without_unlabeled if batch.unlabeled is None else method
            parts, loss = stepper.step(step, config, chosen, batch, unlabeled_part, rate)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failed, half_updated = True, isinstance(error, PartialUpdateError)
        if failed:  # by now the error is gone, and with it what it referred to
            lower_memory()
            if half_updated:
                yield from restore_checkpoint()
            continue
        yield from count_skipped()
        step += 1

        # What others see of it
        now = time.monotonic()
        if step == 1 or now - said >= STEP_EVENT_INTERVAL_S:
            said = now
            beta = adaptive_beta(unlabeled_part, config.uncl.beta_max, config.uncl.beta_min)
            yield _build_step_event(step, config, progress(), elapsed(), loss, parts, beta, rate)
        yield from writer.poll_events()
        if unreported:
            saved = now
            yield from report_memory()
        elif now - saved >= config.intervals.checkpoint_s:
            saved = now
            yield from save_if_possible()
        case = control.preview_case()
        if case is not None and step >= MIN_PREVIEW_STEP and previews.is_due(elapsed()):
            now = time.monotonic()
            yield preview(project, scans, run, model, case, step, *where)
            previews.record(elapsed(), time.monotonic() - now)
        now = time.monotonic()
        if data.validation and validations.is_due(elapsed()) and progress() < 1.0:
            yield from score()
            validations.record(elapsed(), time.monotonic() - now)

    yield from writer.poll_events(wait=True)
    yield from count_skipped(wait=True)
    if step:  # untrained networks are no weights to predict with
        yield from retry_on_full_disk(
            lambda: write_snapshot(snapshot(), run.weights_path, state_path)
        )
        yield {"event": "checkpoint", "step": step}
    batches.close()  # on some systems open files cannot be removed
    shutil.rmtree(borrowed, ignore_errors=True)  # large; made again should the run go on
    if step:
        side = choose_window_side(model, data.labeled, device, dtype)
        model = dataclasses.replace(model, window_side=side)
    if data.validation and step:
        samples: list[CalibrationSample] = []
        yield from score(samples)
        model = dataclasses.replace(model, temperature=fit_temperature(samples))
        yield {"event": "calibrated", "temperature": model.temperature}
    if model.window_side != 1.0 or model.temperature != 1.0:
        yield from retry_on_full_disk(lambda: save_weights(run.weights_path, model, step))
    if outcome == "finished" and step < MIN_USEFUL_STEPS <= config.steps:
        yield {
            "event": "warning",
            "message": f"Only {step} steps fitted into the time, so the networks have hardly "
            "learned. Give the run more time, or a GPU.",
        }
    summary = {
        "step": step,
        "elapsed": round(elapsed(), 2),
        "skipped": skipped_total,
        "dice": last_validation["mean"],
    }
    metrics = {
        **summary,
        "outcome": outcome,
        "validation": last_validation,
        "temperature": model.temperature,
        "window_side": model.window_side,
        "labeled": [case.id for case in data.labeled],
        "unlabeled": len(data.unlabeled),
    }
    yield from retry_on_full_disk(lambda: write_json(run.metrics_path, metrics))
    by_steps = "steps" if step >= config.steps else "time limit"
    yield {"event": outcome, **summary, **({"reason": by_steps} if outcome == "finished" else {})}


def _build_step_event(
    step: int,
    config: TrainConfig,
    progress: float,
    elapsed_s: float,
    loss: torch.Tensor,
    loss_terms: dict[str, torch.Tensor],
    beta: float,
    learning_rate: float,
) -> Event:
    remaining_s = elapsed_s * (1.0 - progress) / progress if progress > 0 else math.inf
    if config.time_limit:
        remaining_s = min(remaining_s, config.time_limit - elapsed_s)
    return {
        "event": "step",
        "step": step,
        "steps": config.steps,
        "progress": round(progress, 5),
        "loss": _to_json_number(loss),
        "parts": {name: _to_json_number(value) for name, value in loss_terms.items()},
        "beta": round(beta, 4),
        "learning_rate": learning_rate,
        "elapsed": round(elapsed_s, 2),
        "remaining": round(max(remaining_s, 0.0), 1) if math.isfinite(remaining_s) else None,
    }


def _to_json_number(value: torch.Tensor) -> float | None:
    """A rounded number; ``None`` for what JSON cannot hold."""
    number = float(value.detach())
    return round(number, 6) if math.isfinite(number) else None


def _to_engine_error(
    error: BaseException, has_checkpoint: bool, device: torch.device
) -> EngineError:
    """One sentence of reason and advice for what torch or the system raised."""
    checkpoint_note = " The last checkpoint is kept" if has_checkpoint else ""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if is_out_of_memory(error):
        cpu = device.type == "cpu"
        device_name = "This computer" if cpu else "The graphics card"
        advice = "close other programs" if cpu else "close other programs, or train on the CPU"
        return EngineError(
            f"{device_name} ran out of memory, also with the smallest steps. To go on, {advice}."
            + (checkpoint_note and f"{checkpoint_note}: the run can be resumed from it.")
        )
    return EngineError(
        f"Training stopped by an error: {text}{checkpoint_note and f'{checkpoint_note}.'}"
    )


def _build_failed_event(error: DyconError) -> Event:
    return {"event": "failed", "message": str(error), "time": round(time.time(), 3)}
