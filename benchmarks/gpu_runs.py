"""Whole runs of the GPU benchmark: too little memory, interruptions, learning."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_context import (
    Measures,
    SectionContext,
    Task,
    build_model,
    build_stepper,
    skip_without_cuda,
)
from safetensors.torch import load_file

from napari_dycon.engine.checkpoints.training_state import read_training_progress
from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.data.loader import BatchLoader
from napari_dycon.engine.inference.predict import predict_probabilities
from napari_dycon.engine.methods import build_method
from napari_dycon.engine.training.run import train
from napari_dycon.engine.training.stepper import GROWTH_INTERVAL, LossScale
from napari_dycon.project.runs.run import Run

RESUME_STEPS, STOP_AT = 24, 10
MIN_DICE = 0.7  # of the last validation; the synthetic scans are easy


def yield_memory_tasks(context: SectionContext) -> Iterator[Task]:
    """Yield a run with half of the required memory and a prediction with a third."""
    yield (
        "training, half the memory",
        ((lambda: _train_with_half(context)) if context.cuda else skip_without_cuda),
    )
    yield (
        "prediction, a third of the memory",
        ((lambda: _predict_with_third(context)) if context.cuda else skip_without_cuda),
    )


@contextlib.contextmanager
def _limit_memory(n_bytes: int) -> Iterator[None]:
    """Limit the GPU memory of this process."""
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(min(n_bytes / total, 1.0))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def _train_with_half(context: SectionContext) -> Measures:
    steps = 12
    config = context.config(
        "dycon", steps=steps, **{"semi_supervised.start": 0.0, "intervals.validation_s": 3600.0}
    )
    required = _peak_of_steps(context, config)
    with _limit_memory(required // 2):
        events: list[Any] = list(train(context.project, config))
    run = context.project.runs.list()[-1]
    kinds = [event.event for event in events]
    warnings = [event.message for event in events if event.event == "warning"]
    memory_warnings = [message for message in warnings if "too little memory" in message]
    smaller = TrainConfig.from_dict(run.read_config())
    return {
        "ok": "finished" in kinds and run.has_weights and len(memory_warnings) == 1,
        "required GiB": required / 2**30,
        "parts": smaller.batch.accumulation_steps,
        "patch": list(smaller.batch.patch_size or ()),
        "warnings": warnings[:4],
    }


def _peak_of_steps(context: SectionContext, config: TrainConfig) -> int:
    data = context.data(config)
    model = build_model(data, context.device)
    stepper = build_stepper(model, context.device, torch.bfloat16)
    batches, method = BatchLoader(data, context.device, read_ahead=0), build_method(data.config)
    torch.cuda.reset_peak_memory_stats()
    for step in range(3):
        batch = batches.load_single(step, data.unlabeled)
        stepper.step(step, data.config, method, batch, 0.5, 1e-3)
    stepper.read_step_outcomes(wait=True)
    batches.close()
    return torch.cuda.max_memory_allocated()


def _predict_with_third(context: SectionContext) -> Measures:
    data = context.data(context.config("dycon"))
    model = build_model(data, context.device)
    image = torch.randn(1, *context.large)
    torch.cuda.reset_peak_memory_stats()
    arguments = model.student, model, image, context.device, torch.bfloat16
    whole = predict_probabilities(*arguments).cpu()
    required = torch.cuda.max_memory_allocated()
    with _limit_memory(required // 3):
        result = predict_probabilities(*arguments).cpu()
    same = float((whole.argmax(dim=0) == result.argmax(dim=0)).float().mean())
    good = bool(torch.isfinite(result).all()) and result.shape == whole.shape
    return {"ok": good, "required GiB": required / 2**30, "same class": same}


def yield_resume_tasks(context: SectionContext) -> Iterator[Task]:
    """Yield comparisons of an interrupted and resumed run with an uninterrupted one."""
    for precision in ("bfloat16", "float16") if context.cuda else ("float32",):
        yield f"dycon {precision}", partial(_compare_resumed, context, precision)
    yield "loss scale", lambda: _check_loss_scale(context)


def _compare_resumed(context: SectionContext, precision: str) -> Measures:
    patch = {} if context.quick else {"batch.patch_size": [32, 48, 48]}
    steps, stop_at = (6, 3) if context.quick else (RESUME_STEPS, STOP_AT)
    config = context.config(
        "dycon", steps=steps, precision=precision,
        **{"semi_supervised.start": 0.3, "intervals.validation_s": 3600.0},
        **{"intervals.checkpoint_s": 0.0}, **patch,
    )  # fmt: skip
    reference = _train_weights(context, config)
    repeated = _train_weights(context, config) if context.cuda else reference
    run, scale = _train_until_checkpoint(context, config, stop_at)
    list(train(context.project, TrainConfig.from_dict(run.read_config()), run))
    resumed = load_file(run.weights_path)
    error, noise = (
        _relative_difference(resumed, reference),
        _relative_difference(repeated, reference),
    )
    progress = read_training_progress(run.state_folder / "state.safetensors")
    expect_scale = precision == "float16" and not context.quick
    return {
        # Runs on a GPU are not bit-identical.
        "ok": error <= 5 * noise + 1e-4 * context.cuda and progress.step == steps
        and (bool(scale) and bool(progress.loss_scale)) == expect_scale,
        "difference": error,
        "difference of repeated run": noise,
        "loss scale": [scale, progress.loss_scale],
    }  # fmt: skip


def _train_weights(context: SectionContext, config: TrainConfig) -> dict[str, torch.Tensor]:
    list(train(context.project, config))
    return load_file(context.project.runs.list()[-1].weights_path)


def _train_until_checkpoint(
    context: SectionContext, config: TrainConfig, step: int
) -> tuple[Run, object]:
    """Interrupt a run after a checkpoint; return it and its loss scale."""
    running: Any = train(context.project, config)
    for event in running:
        if event.event == "checkpoint" and event.step >= step:
            running.close()
            break
    run = context.project.runs.list()[-1]
    return run, read_training_progress(run.state_folder / "state.safetensors").loss_scale


def _relative_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Return the norm of the difference of all weights, relative to the norm of ``other``."""
    difference = sum(float((one[k].double() - other[k].double()).square().sum()) for k in other)
    size = sum(float(value.double().square().sum()) for value in other.values())
    return math.sqrt(difference / size)


def _check_loss_scale(context: SectionContext) -> Measures:
    """Check that the scale is restored, halved by an overflow and doubled after many steps."""
    finite, overflow = (torch.tensor(value, device=context.device) for value in (True, False))
    scale = LossScale.from_json([1024.0, 7.0], context.device)
    restored = scale.to_json() == [1024.0, 7.0]
    scale.update(overflow)
    halved = scale.to_json() == [512.0, 0.0]
    for _ in range(GROWTH_INTERVAL):
        scale.update(finite)
    return {"ok": restored and halved and scale.to_json() == [1024.0, 0.0]}


def yield_learning_tasks(context: SectionContext) -> Iterator[Task]:
    """Yield a short run of the left-atrium preset, whose validation Dice must rise."""
    yield "dycon, left-atrium preset", lambda: _learn(context)


def _learn(context: SectionContext) -> Measures:
    limit: dict[str, float] = {"steps": 3}
    if not context.quick:
        limit = {"time_limit": max(min(context.remaining_s() - 12.0, 75.0), 5.0)}
    config = context.config(
        "dycon", **{"intervals.validation_s": 5.0, "intervals.checkpoint_s": 20.0}, **limit
    )
    events: list[Any] = list(train(context.project, config))
    scores = [event.mean for event in events if event.event == "validation"]
    last = events[-1]
    known = [score for score in scores if score is not None]
    good = last.event == "finished" and bool(known)
    if not context.quick:
        good = good and known[-1] >= MIN_DICE and known[-1] >= known[0] - 0.02
    size = sum(
        path.stat().st_size for path in Path(context.project.runs.list()[-1].folder).rglob("*.*")
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
