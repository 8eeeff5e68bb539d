"""The one training loop, for every method, read from top to bottom.

``train`` is a generator of events (see ``events.py``): it can be paused, stopped and looked at from
outside through the run's ``control.json``, and it leaves checkpoints from which an interrupted run
goes on, on a CPU to the bit. Batches, teacher noise and schedules are functions of seed, step and
progress, so there is no random state to save.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import shutil
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from napari_dycon.engine import checkpoint
from napari_dycon.engine.borrow import borrow
from napari_dycon.engine.calibration import Sample, fit_temperature
from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.control import Control
from napari_dycon.engine.dataset import TrainingData, prepare
from napari_dycon.engine.device import (
    choose_device,
    choose_precision,
    is_out_of_memory,
    keep_memory,
)
from napari_dycon.engine.events import Event, EventLog
from napari_dycon.engine.groups import groups, learnt_from, read_groups
from napari_dycon.engine.loader import Batches
from napari_dycon.engine.methods import Step, build_method, losses_of
from napari_dycon.engine.methods.supervised import Supervised
from napari_dycon.engine.network import build_network, update_teacher
from napari_dycon.engine.optimizer import build_optimizer
from napari_dycon.engine.patches import UnlabelledCase
from napari_dycon.engine.plan import plan_network
from napari_dycon.engine.schedules import (
    adaptive_beta,
    ema_decay,
    learning_rate_factor,
    phase,
)
from napari_dycon.engine.side_jobs import keep_trying, left_out, preview, rehearse, validate
from napari_dycon.errors import DyconError, EngineError, ProjectError
from napari_dycon.project.atomic import write_json
from napari_dycon.project.leftovers import sweep_project

if TYPE_CHECKING:
    from napari_dycon.project.runs import Run
    from napari_dycon.project.store import Project

STEP_EVENT_INTERVAL = 0.5  # seconds
FIRST_STEPS = 20  # over which the learning rate rises at least
MOST_SKIPPED = 50  # non-finite steps in a row after which a run has failed
FEW_STEPS = 100  # fewer than these teach next to nothing
MOST_FITS = 0.75  # share of tensors taken from another run: more with other classes alone
FIRST_PREVIEW = 10  # steps; before, a picture says nothing
MOST_PREPARING = 0.1  # share of a time limit that preparing scans may use up
BORROW_SHARE = 0.2  # of a time limit after which no more scans are deformed
SIDE_JOB_SHARE = 0.15  # of the time goes into each of validation and preview at most


def train(project: Project, config: TrainConfig, run: Run | None = None) -> Iterator[Event]:
    """Train on a project and yield events; every one is also written to ``events.jsonl``.

    Parameters
    ----------
    project : whose labelled and unlabelled cases are learnt from
    config : settings; what they leave open is planned from the data
    run : an existing run to start or to resume; a new one is made otherwise

    Raises
    ------
    UserError
        What a person can mend: no labelled case, unknown device, ...
    EngineError
        What failed on the way: out of memory, numbers that are not finite. The last checkpoint
        stays valid.
    """
    project.need_writing()
    if run is None:
        groups(project, config)  # refuse before a run folder appears
    device, _ = choose_device(config.device)
    if run is None:
        plan_network(config, device.type)  # likewise a patch that does not fit
    run = run or project.new_run(config.method, config.to_dict())
    sweep_project(project.path)
    log = EventLog(run)
    saved = run.has_weights  # asked now: its folder may be what goes away
    try:
        for event in _loop(project, config, run):
            saved = saved or event["event"] == "checkpoint"
            event["time"] = round(time.time(), 3)
            log.write(event)
            yield event
    except DyconError as error:
        log.write(_failed(error))
        raise
    except (RuntimeError, MemoryError, OSError) as error:
        # RuntimeError is what torch raises for lack of memory and for driver trouble.
        known = _explain(error, saved)
        log.write(_failed(known))
        raise known from error


def _loop(project: Project, config: TrainConfig, run: Run) -> Iterator[Event]:
    begin = time.monotonic()
    device, reason = choose_device(config.device)
    state_path = run.state_folder / "state.safetensors"
    loop = checkpoint.read_loop(state_path) if state_path.exists() else {}
    # A timed trial may come out differently the next time, and the run would not be the same.
    known = loop.get("precision", {}).get(device.type, "auto")
    wanted = known if config.precision == "auto" else config.precision
    dtype = choose_precision(wanted, device)
    if device.type == "cpu":
        keep_memory()
    borrowed = run.state_folder / "borrowed"
    frozen = read_groups(run.state_folder) if loop else None
    found = frozen or groups(project, config)
    yield {
        "event": "started",
        "run": run.id,
        "method": config.method,
        "preset": config.preset,
        "device": device.type,
        "device_reason": reason,
        "precision": str(dtype).removeprefix("torch."),
        "labelled": len(found.labelled),
        "unlabelled": len(found.unlabelled),
        "validation": len(found.validation),
        "steps": config.steps,
        "time_limit": config.time_limit,
        "pid": os.getpid(),
        "from_step": loop.get("step", 0),
    }
    control = Control(run)
    data: TrainingData | None = None
    for item in prepare(project, config, device.type, run.state_folder, found, frozen is not None):
        if isinstance(item, TrainingData):
            data = item
        else:
            yield item
        if frozen is None and control.stop():  # a resumed run has something to end with
            yield {"event": "stopped", "step": 0, "elapsed": 0.0, "skipped": 0, "dice": None}
            return
    assert data is not None
    config = data.config
    write_json(run.config_path, config.to_dict())
    for warning in data.warnings:
        yield {"event": "warning", "message": warning}

    # Networks: the teacher is the student's moving average and never trained itself.
    torch.manual_seed(config.seed)
    student = build_network(config, data.channels, len(data.class_values) + 1).to(device)
    if device.type == "cpu":  # measured: a step takes 15 to 25 % less
        student.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    teacher = copy.deepcopy(student).requires_grad_(False)
    model = checkpoint.Model(student, teacher, config, data.class_values, data.channels)
    optimizer = build_optimizer(config, student)
    where = device, dtype
    method, without_unlabelled = build_method(config), Supervised(config)
    step, spent, skipped_total = 0, 0.0, 0
    if loop:
        loop = checkpoint.load_state(state_path, model, optimizer)
        step, spent, skipped_total = loop["step"], loop["elapsed"], loop["skipped"]
    elif config.init_from:
        source = project.run(config.init_from).weights_path
        fitted = checkpoint.copy_matching(model, source)
        if fitted < MOST_FITS:
            rest = f"{fitted:.0%} of it could be taken, the rest" if fitted else "this run"
            yield {
                "event": "warning",
                "message": f"Run {config.init_from} has another kind of network; {rest} starts "
                "from scratch. Start from a run with the same filters to keep what it learnt.",
            }
        seen = learnt_from(project, config.init_from)
        if both := sorted(seen & set(data.validation)):
            yield {
                "event": "warning",
                "message": f"Run {config.init_from}, or one that it started from, learnt from "
                f"{len(both)} case(s) that are kept for validation now ({both[0]}); their Dice "
                "looks better than it is.",
            }
    batches = Batches(data, device)
    nobody: list[UnlabelledCase] = []
    noise = torch.Generator(device)
    last_validation = {"dice": {}, "mean": None}  # type: dict[str, object]
    said = saved = checked = shown = time.monotonic()
    check_gap, show_gap = config.validate_every, min(config.preview_every, 5.0)
    skipped = 0
    outcome = ""
    # Preparing counts towards the time limit, unless it would leave little of it for learning.
    prepared = time.monotonic() - begin
    if config.time_limit and not step:
        spent = min(prepared, MOST_PREPARING * config.time_limit)
    begin = time.monotonic()

    def elapsed() -> float:
        return spent + time.monotonic() - begin

    def progress() -> float:
        by_time = elapsed() / config.time_limit if config.time_limit else 0.0
        return min(max(step / config.steps, by_time), 1.0)

    def pauses() -> Iterator[Event]:
        nonlocal begin
        if not control.pause():
            return
        yield {"event": "paused", "step": step}
        waited = time.monotonic()
        if step:
            yield from save_if_possible()
        while control.pause():
            control.wait()
        begin += time.monotonic() - waited
        yield {"event": "resumed", "step": step}

    def score(samples: list[Sample] | None = None) -> Iterator[Event]:
        nonlocal last_validation
        before = last_validation.get("missed")
        last_validation = validate(project, data, model, *where, samples)
        yield {"event": "validation", "step": step, "progress": progress(), **last_validation}
        if last_validation.get("missed") != before:
            yield from left_out(last_validation)

    def save() -> None:
        precision = {device.type: str(dtype).removeprefix("torch.")}
        loop = {
            "step": step, "elapsed": elapsed(), "skipped": skipped_total, "precision": precision
        }  # fmt: skip
        checkpoint.save_weights(run.weights_path, model, step)
        checkpoint.save_state(state_path, model, optimizer, loop)

    def save_if_possible() -> Iterator[Event]:
        try:
            save()
            yield {"event": "checkpoint", "step": step}
        except ProjectError as error:  # a full disk may have room again the next time
            yield {"event": "warning", "message": f"No checkpoint at step {step}: {error}"}

    if config.warps and data.unlabelled and progress() < 1.0:
        until = BORROW_SHARE * (config.time_limit or math.inf)

        def enough() -> bool:
            return control.stop() or (not step and elapsed() > until)

        for event in borrow(data, borrowed, device, resumed=step > 0, enough=enough):
            yield event
            yield from pauses()
        if step:  # as preparing, making again what the run had costs it no time
            begin = time.monotonic()

    student.train()
    teacher.train()
    comes = data.unlabelled and progress() < config.unlabelled_start < 1.0
    if device.type != "cpu" and comes and not control.stop():
        # Scans without labels take twice the memory: if it does not suffice, then now and not at
        # the end of a night.
        rehearsed = batches.one(step, data.unlabelled)
        rehearse(method, Step(student, teacher, rehearsed, 1.0, noise), *where)
        del rehearsed
    while not outcome:
        # What the person asks for
        if control.stop():
            outcome = "stopped"
            break
        if control.pause():
            yield from pauses()
            continue
        done = progress()
        if done >= 1.0:
            outcome = "finished"
            break

        # One step
        started = done >= config.unlabelled_start
        batch = batches.get(step, data.unlabelled if started else nobody)
        noise.manual_seed(config.seed * 1_000_003 + step)
        rate = config.learning_rate * learning_rate_factor(done, config.warmup)
        rate *= min(1.0, (step + 1) / FIRST_STEPS)  # matching shapes may have used up the warm-up
        for group in optimizer.param_groups:
            group["lr"] = rate
        chosen = without_unlabelled if batch.unlabelled is None else method
        unlabelled_part = phase(done, config.unlabelled_start)
        parts, loss = losses_of(
            chosen, Step(student, teacher, batch, unlabelled_part, noise), *where
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(student.parameters(), config.clip_norm)
        if torch.isfinite(loss) and torch.isfinite(norm):
            optimizer.step()
            update_teacher(teacher, student, ema_decay(step, config.ema_decay))
            skipped = 0
        else:
            skipped, skipped_total = skipped + 1, skipped_total + 1
            yield {
                "event": "warning",
                "message": f"Step {step + 1} gave a loss that is not a finite number and was "
                f"skipped ({skipped_total} so far).",
            }
            if skipped >= MOST_SKIPPED:
                raise EngineError(
                    f"{skipped} steps in a row gave no finite loss. Lower learning_rate, or check "
                    "the scans for extreme values. The last checkpoint is kept."
                )
        step += 1

        # What others see of it
        now = time.monotonic()
        if step == 1 or now - said >= STEP_EVENT_INTERVAL:
            said = now
            beta = adaptive_beta(unlabelled_part, config.beta_max, config.beta_min)
            yield _step_event(step, config, progress(), elapsed(), loss, parts, beta, rate)
        if now - saved >= config.checkpoint_every:
            saved = now
            yield from save_if_possible()
        case = control.preview()
        if case is not None and now - shown >= show_gap and step >= FIRST_PREVIEW:
            yield preview(project, run, model, case, step, *where)
            shown = time.monotonic()
            show_gap = max(config.preview_every, (shown - now) / SIDE_JOB_SHARE)
        if data.validation and now - checked >= check_gap and progress() < 1.0:
            yield from score()
            checked = time.monotonic()
            check_gap = max(config.validate_every, (checked - now) / SIDE_JOB_SHARE)

    if step:  # untrained networks are no weights to predict with
        yield from keep_trying(save)
        yield {"event": "checkpoint", "step": step}
    batches.close()  # on some systems open files cannot be removed
    shutil.rmtree(borrowed, ignore_errors=True)  # large; made again should the run go on
    if data.validation and step:
        samples: list[Sample] = []
        yield from score(samples)
        model = dataclasses.replace(model, temperature=fit_temperature(samples))
        yield from keep_trying(lambda: checkpoint.save_weights(run.weights_path, model, step))
        yield {"event": "calibrated", "temperature": model.temperature}
    if outcome == "finished" and step < FEW_STEPS <= config.steps:
        yield {
            "event": "warning",
            "message": f"Only {step} steps fitted into the time, so the networks have hardly "
            "learnt. Give the run more time, or a GPU.",
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
        "labelled": [case.id for case in data.labelled],
        "unlabelled": len(data.unlabelled),
    }
    yield from keep_trying(lambda: write_json(run.metrics_path, metrics))
    by_steps = "steps" if step >= config.steps else "time limit"
    yield {"event": outcome, **summary, **({"reason": by_steps} if outcome == "finished" else {})}


def _step_event(
    step: int,
    config: TrainConfig,
    progress: float,
    elapsed: float,
    loss: torch.Tensor,
    parts: dict[str, torch.Tensor],
    beta: float,
    rate: float,
) -> Event:
    left = elapsed * (1.0 - progress) / progress if progress > 0 else math.inf
    if config.time_limit:
        left = min(left, config.time_limit - elapsed)
    return {
        "event": "step",
        "step": step,
        "steps": config.steps,
        "progress": round(progress, 5),
        "loss": _number(loss),
        "parts": {name: _number(value) for name, value in parts.items()},
        "beta": round(beta, 4),
        "learning_rate": rate,
        "elapsed": round(elapsed, 2),
        "remaining": round(max(left, 0.0), 1) if math.isfinite(left) else None,
    }


def _number(value: torch.Tensor) -> float | None:
    """A rounded number; ``None`` for what JSON cannot hold."""
    number = float(value.detach())
    return round(number, 6) if math.isfinite(number) else None


def _explain(error: BaseException, saved: bool) -> EngineError:
    """One sentence of reason and advice for what torch or the system raised."""
    kept = " The last checkpoint is kept" if saved else ""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if is_out_of_memory(error):
        return EngineError(
            "The device ran out of memory. Use a smaller patch (--set patch=[64,64,64]) or a "
            "smaller batch (--set unlabelled_batch=1), or close other programs that use it."
            + (kept and f"{kept}: a new run with other settings can go on from it (--start-from).")
        )
    return EngineError(f"Training stopped by an error: {text}{kept and f'{kept}.'}")


def _failed(error: DyconError) -> Event:
    return {"event": "failed", "message": str(error), "time": round(time.time(), 3)}
