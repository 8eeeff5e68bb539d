"""Whole runs of the GPU benchmark: too little memory, interruptions, learning."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from gpu_lab import Lab, Measures, Task, build_model, build_stepper, skip_without_cuda
from safetensors.torch import load_file

from napari_dycon.engine.checkpoints.training_state import read_training_progress
from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.data.loader import BatchLoader
from napari_dycon.engine.inference.predict import predict_probabilities
from napari_dycon.engine.methods import build_method
from napari_dycon.engine.training.run import train
from napari_dycon.engine.training.stepper import GROWTH_INTERVAL, LossScale
from napari_dycon.project.runs.events import Event
from napari_dycon.project.runs.run import Run

RESUME_STEPS, STOP_AT = 24, 10
LEAST_DICE = 0.7  # of the last validation; what is drawn is easy


def memory(lab: Lab) -> Iterator[Task]:
    """Half of the memory that is needed: a run and a prediction must come to their end."""
    yield (
        "training, half the memory",
        ((lambda: _train_with_half(lab)) if lab.cuda else skip_without_cuda),
    )
    yield (
        "prediction, a third of the memory",
        ((lambda: _predict_with_third(lab)) if lab.cuda else skip_without_cuda),
    )


@contextlib.contextmanager
def _limited(wanted: int) -> Iterator[None]:
    """Let this process have some bytes of the GPU's memory."""
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(min(wanted / total, 1.0))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def _train_with_half(lab: Lab) -> Measures:
    steps = 12
    config = lab.config(
        "dycon", steps=steps, **{"semi_supervised.start": 0.0, "intervals.validation_s": 3600.0}
    )
    needed = _peak_of_steps(lab, config)
    with _limited(needed // 2):
        events = list(train(lab.project, config))
    run = lab.project.runs.list()[-1]
    kinds = [event.event for event in events]
    told = [event.message for event in events if event.event == "warning"]
    about = [message for message in told if "too little memory" in message]
    smaller = TrainConfig.from_dict(run.read_config())
    return {
        "ok": "finished" in kinds and run.has_weights and len(about) == 1,
        "needed GiB": needed / 2**30,
        "parts": smaller.batch.accumulation_steps,
        "patch": list(smaller.batch.patch_size or ()),
        "warnings": told[:4],
    }


def _peak_of_steps(lab: Lab, config: TrainConfig) -> int:
    data = lab.data(config)
    model = build_model(data, lab.device)
    stepper = build_stepper(model, lab.device, torch.bfloat16)
    batches, method = BatchLoader(data, lab.device, read_ahead=0), build_method(data.config)
    torch.cuda.reset_peak_memory_stats()
    for step in range(3):
        batch = batches.load_single(step, data.unlabeled)
        stepper.step(step, data.config, method, batch, 0.5, 1e-3)
    stepper.read_step_outcomes(wait=True)
    batches.close()
    return torch.cuda.max_memory_allocated()


def _predict_with_third(lab: Lab) -> Measures:
    data = lab.data(lab.config("dycon"))
    model = build_model(data, lab.device)
    image = torch.randn(1, *lab.large)
    torch.cuda.reset_peak_memory_stats()
    how = model.student, model, image, lab.device, torch.bfloat16
    whole = predict_probabilities(*how).cpu()
    needed = torch.cuda.max_memory_allocated()
    with _limited(needed // 3):
        found = predict_probabilities(*how).cpu()
    same = float((whole.argmax(dim=0) == found.argmax(dim=0)).float().mean())
    good = bool(torch.isfinite(found).all()) and found.shape == whole.shape
    return {"ok": good, "needed GiB": needed / 2**30, "same class": same}


def resume(lab: Lab) -> Iterator[Task]:
    """A run that is interrupted and resumed, against one that is not."""
    for precision in ("bfloat16", "float16") if lab.cuda else ("float32",):
        yield f"dycon {precision}", partial(_resume, lab, precision)
    yield "loss scale", lambda: _loss_scale(lab)


def _resume(lab: Lab, precision: str) -> Measures:
    patch = {} if lab.quick else {"batch.patch_size": [32, 48, 48]}
    steps, stop_at = (6, 3) if lab.quick else (RESUME_STEPS, STOP_AT)
    config = lab.config(
        "dycon", steps=steps, precision=precision,
        **{"semi_supervised.start": 0.3, "intervals.validation_s": 3600.0},
        **{"intervals.checkpoint_s": 0.0}, **patch,
    )  # fmt: skip
    whole = _weights(lab, config)
    again = _weights(lab, config) if lab.cuda else whole
    run, scale = _interrupted(lab, config, stop_at)
    list(train(lab.project, TrainConfig.from_dict(run.read_config()), run))
    resumed = load_file(run.weights_path)
    error, noise = _difference(resumed, whole), _difference(again, whole)
    progress = read_training_progress(run.state_folder / "state.safetensors")
    wanted = precision == "float16" and not lab.quick
    return {
        # The same run twice is not the same to the bit on a GPU.
        "ok": error <= 5 * noise + 1e-4 * lab.cuda and progress.step == steps
        and (bool(scale) and bool(progress.loss_scale)) == wanted,
        "difference": error,
        "of the same run twice": noise,
        "loss scale": [scale, progress.loss_scale],
    }  # fmt: skip


def _weights(lab: Lab, config: TrainConfig) -> dict[str, torch.Tensor]:
    list(train(lab.project, config))
    return load_file(lab.project.runs.list()[-1].weights_path)


def _interrupted(lab: Lab, config: TrainConfig, step: int) -> tuple[Run, object]:
    """A run that was ended after a checkpoint, and the loss scale in it."""
    running = train(lab.project, config)
    for event in running:
        if event.event == "checkpoint" and event.step >= step:
            running.close()  # type: ignore[attr-defined]
            break
    run = lab.project.runs.list()[-1]
    return run, read_training_progress(run.state_folder / "state.safetensors").loss_scale


def _difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Norm of the difference of all weights, relative to theirs."""
    apart = sum(float((one[k].double() - other[k].double()).square().sum()) for k in other)
    size = sum(float(value.double().square().sum()) for value in other.values())
    return math.sqrt(apart / size)


def _loss_scale(lab: Lab) -> Measures:
    """Kept as it is, halved by an overflow, doubled after many steps without."""
    yes, no = (torch.tensor(value, device=lab.device) for value in (True, False))
    scale = LossScale.from_json([1024.0, 7.0], lab.device)
    kept = scale.to_json() == [1024.0, 7.0]
    scale.update(no)
    halved = scale.to_json() == [512.0, 0.0]
    for _ in range(GROWTH_INTERVAL):
        scale.update(yes)
    return {"ok": kept and halved and scale.to_json() == [1024.0, 0.0]}


def learning(lab: Lab) -> Iterator[Task]:
    """A short run of the left-atrium preset: the validation Dice rises."""
    yield "dycon, left-atrium preset", lambda: _learn(lab)


def _learn(lab: Lab) -> Measures:
    limit: dict[str, float] = {"steps": 3}
    if not lab.quick:
        limit = {"time_limit": max(min(lab.left() - 12.0, 75.0), 5.0)}
    config = lab.config(
        "dycon", **{"intervals.validation_s": 5.0, "intervals.checkpoint_s": 20.0}, **limit
    )
    events: list[Event] = list(train(lab.project, config))
    scores = [event.mean for event in events if event.event == "validation"]
    last = events[-1]
    known = [score for score in scores if score is not None]
    good = last.event == "finished" and bool(known)
    if not lab.quick:
        good = good and known[-1] >= LEAST_DICE and known[-1] >= known[0] - 0.02
    size = sum(
        path.stat().st_size for path in Path(lab.project.runs.list()[-1].folder).rglob("*.*")
    )
    return {
        "ok": good,
        "steps": last.step,
        "steps/s": last.step / max(last.elapsed_s, 1e-9),
        "skipped": last.skipped,
        "dice": scores[:1] + scores[-3:],
        "validations": len(scores),
        "run MB": size / 1e6,
        "warnings": [e.message[:120] for e in events if e.event == "warning"][:4],
        "precision": next(e.precision for e in events if e.event == "started"),
    }
