"""Training steps of the GPU benchmark: correctness and speed."""

from __future__ import annotations

import contextlib
import copy
import math
import time
import warnings
from collections.abc import Iterator
from functools import partial
from unittest import mock

import torch
from gpu_context import (
    CPU,
    METHODS,
    PRECISIONS,
    Measures,
    SectionContext,
    Task,
    build_model,
    build_stepper,
)
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from napari_dycon.engine.checkpoints.model_file import TrainedModel
from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.data import loader
from napari_dycon.engine.data.loader import BatchLoader
from napari_dycon.engine.data.patches import Batch, LabeledBatch, UnlabeledBatch
from napari_dycon.engine.data.preparation import TrainingData
from napari_dycon.engine.data.volumes import ResidentVolumes, reserve_on_device
from napari_dycon.engine.device import tune_for_training
from napari_dycon.engine.methods import build_method
from napari_dycon.engine.methods.base import StepInputs, compute_losses
from napari_dycon.engine.training.stepper import Stepper

MAX_ERROR = {torch.float32: 1e-3, torch.bfloat16: 5e-2}  # of losses; float32 also of gradients
MAX_ERROR_RATIO = 3  # or this multiple of the float32 error of the CPU
PRETRAINING_STEPS = 30  # supervised, so that predictions are not constant
WARM_UP_STEPS, PROFILED_STEPS, CHECKED_STEPS = 8, 20, 5
MAX_STEPS = 400  # measured
MIN_STEPS_TO_LEARN = 50  # the loss need not fall in fewer steps
Result = tuple[dict[str, float], list[Tensor]]  # loss terms; gradients


def yield_correctness_tasks(context: SectionContext) -> Iterator[Task]:
    """Yield comparisons of a step of each method with float64 on the CPU."""
    patch = {} if context.quick else {"batch.patch_size": [32, 48, 64]}
    config = context.config(
        "dycon",
        **{"semi_supervised.teacher_noise_std": 0.0, "semi_supervised.pseudo_label_threshold": 0.5},
        **patch,
    )
    data = context.data(config)
    model = build_model(data, context.device)
    batches = BatchLoader(data, context.device, read_ahead=0)
    _pretrain(context, data, model, batches)
    batch = batches.load_single(1000, data.unlabeled)
    batches.close()
    for method in METHODS:
        yield method, partial(_compare_with_float64, context, method, model, batch)


def _pretrain(
    context: SectionContext, data: TrainingData, model: TrainedModel, batches: BatchLoader
) -> None:
    stepper = build_stepper(model, context.device, torch.float32)
    method = build_method(data.config.with_changes(method="supervised"))
    for step in range(4 if context.quick else PRETRAINING_STEPS):
        stepper.step(step, data.config, method, batches.load_single(step, []), 0.0, 0.01)
    stepper.read_step_outcomes(wait=True)


def _compare_with_float64(
    context: SectionContext, method: str, model: TrainedModel, batch: Batch
) -> Measures:
    """Measure errors relative to float64; the float32 error of the CPU sets the tolerance."""
    config = model.config.with_changes(method=method)
    exact = _compute_step(config, model, batch, CPU, torch.float64)
    measures: Measures = {"loss": round(sum(exact[0].values()), 5)}
    passed = True
    runs = [("cpu float32", CPU, torch.float32)]
    runs += [
        (f"{context.device.type} {str(t)[6:]}", context.device, t)
        for t in MAX_ERROR
        if context.cuda
    ]
    runs += [("cpu bfloat16", CPU, torch.bfloat16)] * (not context.cuda)
    tolerance: dict[str, float] = {}
    with _disable_tf32():
        for name, device, dtype in runs:
            result = _compute_step(config, model, batch, device, dtype)
            errors = _loss_errors(result[0], exact[0])
            gradient = _gradient_error(result[1], exact[1])
            worst = max(errors.values())
            measures[name] = {"loss": worst, "gradient": gradient}
            if name == "cpu float32":
                tolerance = {
                    "loss": MAX_ERROR_RATIO * worst,
                    "gradient": MAX_ERROR_RATIO * gradient,
                }
                continue
            passed &= worst <= max(MAX_ERROR[dtype], tolerance["loss"])
            if dtype == torch.float32:
                passed &= gradient <= max(MAX_ERROR[dtype], tolerance["gradient"])
            if not passed:
                measures[f"{name} parts"] = errors
    return {**measures, "ok": bool(passed)}


def _compute_step(
    config: TrainConfig, model: TrainedModel, batch: Batch, device: torch.device, dtype: torch.dtype
) -> Result:
    """Return the loss terms, and the gradients of the student in float64 on the CPU."""
    stored = torch.float64 if dtype == torch.float64 else torch.float32
    student, teacher = (
        copy.deepcopy(network).to(device, stored) for network in (model.student, model.teacher)
    )
    inputs = StepInputs(
        student,
        teacher,
        _move_batch(batch, device, stored),
        0.5,
        torch.Generator(device).manual_seed(0),
    )
    method = build_method(config)
    if dtype == torch.float64:
        parts = method.compute_loss_terms(inputs)
        loss = torch.stack([part.double() for part in parts.values()]).sum()
    else:
        parts, loss = compute_losses(method, inputs, device, dtype)
    loss.backward()
    gradients = [
        (torch.zeros_like(p) if p.grad is None else p.grad).cpu().double()
        for p in student.parameters()
    ]
    return {name: float(part.detach()) for name, part in parts.items()}, gradients


def _move_batch(batch: Batch, device: torch.device, dtype: torch.dtype) -> Batch:
    def move(part: LabeledBatch | UnlabeledBatch) -> dict[str, Tensor]:
        # Positions keep their precision: rounded, they could be in another region.
        found = {name: tensor.to(device) for name, tensor in part._asdict().items()}
        return found | {"image": found["image"].to(dtype)}

    assert batch.unlabeled is not None
    return Batch(LabeledBatch(**move(batch.labeled)), UnlabeledBatch(**move(batch.unlabeled)))


def _loss_errors(found: dict[str, float], exact: dict[str, float]) -> dict[str, float]:
    """Return relative errors; of small terms relative to a hundredth of the sum."""
    floor = 0.01 * abs(sum(exact.values())) + 1e-12
    return {
        name: _finite(abs(found[name] - value) / max(abs(value), floor))
        for name, value in exact.items()
    }


def _gradient_error(found: list[Tensor], exact: list[Tensor]) -> float:
    difference = sum(float((a - b).square().sum()) for a, b in zip(found, exact, strict=True))
    size = sum(float(b.square().sum()) for b in exact)
    return _finite(math.sqrt(difference / max(size, 1e-30)))


def _finite(error: float) -> float:
    """Return the error, or a huge number that JSON can represent if it is not finite."""
    return float(f"{error:.3g}") if math.isfinite(error) else 1e9


@contextlib.contextmanager
def _disable_tf32() -> Iterator[None]:
    precision, allowed = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = allowed


def yield_training_tasks(context: SectionContext) -> Iterator[Task]:
    """Yield speed, memory, idle time and synchronizations of runs with two plans."""
    tune_for_training(context.device)
    preset = {"left-atrium": "left-atrium", "default": "default"}
    runs = [("left-atrium", method, "bfloat16", "") for method in METHODS]
    runs += [("left-atrium", "dycon", name, "") for name in ("float32", "float16")]
    runs += [("default", "dycon", name, "") for name in PRECISIONS]
    runs += [("default", "supervised", "bfloat16", "")]
    runs += [("default", "dycon", "bfloat16", variant) for variant in ("contiguous", "mapped")]
    if context.quick:
        runs = [run for run in runs if run[2] == "float32"] + runs[:2]
    plans = {
        name: context.data(context.config("dycon", chosen, **{"semi_supervised.start": 0.0}))
        for name, chosen in preset.items()
    }
    for number, (plan, method, precision, variant) in enumerate(runs):
        name = " ".join(filter(None, (plan, method, precision, variant)))
        runs_left = len(runs) - number
        yield (
            name,
            partial(
                _measure, context, plans[plan], method, PRECISIONS[precision], variant, runs_left
            ),
        )


def _measure(
    context: SectionContext,
    data: TrainingData,
    method: str,
    dtype: torch.dtype,
    variant: str,
    runs_left: int,
) -> Measures:
    """Take steps as a run does, for a fraction of the remaining time."""
    seconds = 0.3 if context.quick else min(0.6 * context.remaining_s() / runs_left, 20.0)
    config = data.config.with_changes(method=method)
    keep_mapped = variant == "mapped"
    with mock.patch.object(
        loader, "reserve_on_device", (lambda *_: None) if keep_mapped else reserve_on_device
    ):
        if context.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        model = build_model(data, context.device, channels_last=variant != "contiguous")
        trainer = MeasuredTrainer(
            context, data, config, model, build_stepper(model, context.device, dtype)
        )
        try:
            warm_up_ms = context.milliseconds(lambda: trainer.take(WARM_UP_STEPS))
            flops = trainer.count_flops() if variant == "" else None
            while context.cuda and not keep_mapped and trainer.step < 60 and not trainer.resident:
                trainer.take(1)
            measures = trainer.run_for(seconds)
            measures["warm-up s"] = warm_up_ms / 1e3
            if flops:
                measures["TFLOP per step"] = flops / 1e12
                measures["TFLOP/s"] = flops / 1e12 * measures["steps/s"]
            if context.cuda:
                measures |= trainer.measure_waits()
        finally:
            trainer.batches.close()
    return {
        "batch.patch_size": list(config.batch.patch_size or ()),
        "network.filters": list(config.network.filters or ()),
        **measures,
    }


class MeasuredTrainer:
    """Takes steps and measures them."""

    def __init__(
        self,
        context: SectionContext,
        data: TrainingData,
        config: TrainConfig,
        model: TrainedModel,
        stepper: Stepper,
    ) -> None:
        self.context, self.config, self.model, self.stepper = context, config, model, stepper
        self.unlabeled = [] if config.method == "supervised" else data.unlabeled
        self.batches = BatchLoader(data, context.device)
        self.method = build_method(config)
        self.step = 0
        self.losses: list[Tensor] = []
        self.batch_s = 0.0

    @property
    def resident(self) -> bool:
        """Whether all scans are in GPU memory."""
        return isinstance(self.batches._volumes, ResidentVolumes)

    def take(self, count: int) -> None:
        """Take steps; the host runs ahead of the GPU as in a run."""
        for _ in range(count):
            begin = time.perf_counter()
            batch = self.batches.get(self.step, self.unlabeled)
            self.batch_s += time.perf_counter() - begin
            rate = self.config.optimizer.learning_rate * min(1.0, (self.step + 1) / 20)
            _, loss = self.stepper.step(self.step, self.config, self.method, batch, 0.5, rate)
            self.losses.append(loss.detach())
            self.stepper.read_step_outcomes()
            self.step += 1

    def run_for(self, seconds: float) -> Measures:
        """Measure steps for some seconds."""
        context, first = self.context, self.step
        self.batch_s = 0.0
        context.synchronize()
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds and self.step - first < MAX_STEPS:
            self.take(1)
        launched = time.perf_counter()
        context.synchronize()
        end = time.perf_counter()
        count = self.step - first
        finite = [taken for _, taken in self.stepper.read_step_outcomes(wait=True)]
        losses = torch.stack(self.losses).float().tolist()
        count_averaged = max(len(losses) // 10, 1)
        start, stop = (
            sum(part) / count_averaged
            for part in (losses[:count_averaged], losses[-count_averaged:])
        )
        good = all(map(math.isfinite, losses)) and (count < MIN_STEPS_TO_LEARN or stop < start)
        measures: Measures = {
            "ok": bool(good and all(finite)),
            "steps": count,
            "steps/s": count / (end - begin),
            "ms": (end - begin) / count * 1e3,
            "host ahead ms": (end - launched) * 1e3,  # at the end; 0: the GPU was waiting
            "batch ms": self.batch_s / count * 1e3,
            "loss": [round(start, 4), round(stop, 4)],
            "volumes": "resident" if self.resident else "mapped",
        }
        if context.cuda:
            measures["peak GiB"] = torch.cuda.max_memory_allocated() / 2**30
            measures["reserved GiB"] = torch.cuda.max_memory_reserved() / 2**30
        return measures

    def count_flops(self) -> int:
        """Count the operations of convolutions and matrix products in a step."""
        with FlopCounterMode(display=False) as counter:
            self.take(1)
        return int(counter.get_total_flops())

    def measure_waits(self) -> Measures:
        """Measure waits of the host for the GPU per step, and the fraction of idle time."""
        measures: Measures = {}
        self.context.synchronize()
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                self.take(CHECKED_STEPS)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        waits = [w for w in found if "synchroniz" in str(w.message)]
        locations = {f"{w.filename.rsplit('/', 1)[-1]}:{w.lineno}" for w in waits}
        measures["waits/step"] = len(waits) / CHECKED_STEPS
        if locations:
            measures["locations"] = sorted(locations)[:8]
        try:
            measures["GPU idle"] = self._measure_idle_fraction()
        except Exception as error:  # CUPTI may be missing or not permitted
            measures["GPU idle"] = f"not measured ({str(error).splitlines()[0][:80]})"
        return measures

    def _measure_idle_fraction(self) -> float:
        """Return the fraction of time without a kernel, during some steps."""
        self.context.synchronize()
        activities = [torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            self.take(PROFILED_STEPS)
            self.context.synchronize()
        kernels = sorted(
            (event.time_range.start, event.time_range.end)
            for event in profile.events()
            if event.device_type == torch.autograd.DeviceType.CUDA  # type: ignore[attr-defined]
            and not getattr(event, "is_user_annotation", False)  # spans, not kernels
            and not event.name.startswith("Optimizer.")
        )
        if not kernels:
            raise RuntimeError("the profiler recorded no kernel")
        busy, end = 0.0, kernels[0][0]
        for start, stop in kernels:
            busy += max(stop - max(start, end), 0.0)
            end = max(end, stop)
        return 1.0 - busy / max(end - kernels[0][0], 1e-9)
