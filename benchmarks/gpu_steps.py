"""Training steps of the GPU benchmark: right numbers, and how fast."""

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
from gpu_lab import (
    CPU,
    METHODS,
    PRECISIONS,
    Lab,
    Measures,
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
from napari_dycon.engine.data.volumes import ResidentVolumes
from napari_dycon.engine.device import tune_for_training
from napari_dycon.engine.methods import build_method
from napari_dycon.engine.methods.base import StepInputs, compute_losses
from napari_dycon.engine.training.stepper import Stepper

MAX_ERROR = {torch.float32: 1e-3, torch.bfloat16: 5e-2}  # of losses; float32 also of gradients
CPU_ERRORS = 3  # or as many times what the CPU's own float32 errs by
FIRST_STEPS = 30  # supervised ones, so that networks predict something
WARM_UP, PROFILED, WATCHED = 8, 20, 5  # steps
MAX_STEPS, FEW_STEPS = 400, 50  # measured at most; too few to expect a lower loss
Result = tuple[dict[str, float], list[Tensor]]  # parts of a loss; gradients


def correctness(lab: Lab) -> Iterator[Task]:
    """One step of each method in float64 on the CPU, and in other precisions on the device."""
    patch = {} if lab.quick else {"batch.patch_size": [32, 48, 64]}
    config = lab.config(
        "dycon",
        **{"semi_supervised.teacher_noise_std": 0.0, "semi_supervised.pseudo_label_threshold": 0.5},
        **patch,
    )
    data = lab.data(config)
    model = build_model(data, lab.device)
    batches = BatchLoader(data, lab.device, read_ahead=0)
    _learn_a_little(lab, data, model, batches)
    batch = batches.load_single(1000, data.unlabeled)
    batches.close()
    for method in METHODS:
        yield method, partial(_compare, lab, method, model, batch)


def _learn_a_little(
    lab: Lab, data: TrainingData, model: TrainedModel, batches: BatchLoader
) -> None:
    stepper = build_stepper(model, lab.device, torch.float32)
    method = build_method(data.config.with_changes(method="supervised"))
    for step in range(4 if lab.quick else FIRST_STEPS):
        stepper.step(step, data.config, method, batches.load_single(step, []), 0.0, 0.01)
    stepper.read_step_outcomes(wait=True)


def _compare(lab: Lab, method: str, model: TrainedModel, batch: Batch) -> Measures:
    """Errors relative to float64, of the CPU in float32 as well, which is what can be asked."""
    config = model.config.with_changes(method=method)
    exact = _one_step(config, model, batch, CPU, torch.float64)
    measures: Measures = {"loss": round(sum(exact[0].values()), 5)}
    passed = True
    runs = [("cpu float32", CPU, torch.float32)]
    runs += [(f"{lab.device.type} {str(t)[6:]}", lab.device, t) for t in MAX_ERROR if lab.cuda]
    runs += [("cpu bfloat16", CPU, torch.bfloat16)] * (not lab.cuda)
    most: dict[str, float] = {}
    with _without_tf32():
        for name, device, dtype in runs:
            found = _one_step(config, model, batch, device, dtype)
            errors = _loss_errors(found[0], exact[0])
            gradient = _gradient_error(found[1], exact[1])
            worst = max(errors.values())
            measures[name] = {"loss": worst, "gradient": gradient}
            if name == "cpu float32":
                most = {"loss": CPU_ERRORS * worst, "gradient": CPU_ERRORS * gradient}
                continue
            passed &= worst <= max(MAX_ERROR[dtype], most["loss"])
            if dtype == torch.float32:
                passed &= gradient <= max(MAX_ERROR[dtype], most["gradient"])
            if not passed:
                measures[f"{name} parts"] = errors
    return {**measures, "ok": bool(passed)}


def _one_step(
    config: TrainConfig, model: TrainedModel, batch: Batch, device: torch.device, dtype: torch.dtype
) -> Result:
    """Parts of the loss, and the student's gradients in float64 on the CPU."""
    stored = torch.float64 if dtype == torch.float64 else torch.float32
    student, teacher = (
        copy.deepcopy(network).to(device, stored) for network in (model.student, model.teacher)
    )
    inputs = StepInputs(
        student, teacher, _moved(batch, device, stored), 0.5, torch.Generator(device).manual_seed(0)
    )
    method = build_method(config)
    if dtype == torch.float64:
        parts = method.compute_loss_terms(inputs)
        loss = torch.stack([part.double() for part in parts.values()]).sum()
    else:
        parts, loss = compute_losses(method, inputs, device, dtype)
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [
        (torch.zeros_like(p) if p.grad is None else p.grad).cpu().double()
        for p in student.parameters()
    ]
    return {name: float(part.detach()) for name, part in parts.items()}, gradients


def _moved(batch: Batch, device: torch.device, dtype: torch.dtype) -> Batch:
    def moved(part: LabeledBatch | UnlabeledBatch) -> dict[str, Tensor]:
        # Positions stay as they are: rounded otherwise, they could fall into another region.
        found = {name: tensor.to(device) for name, tensor in part._asdict().items()}
        return found | {"image": found["image"].to(dtype)}

    assert batch.unlabeled is not None
    return Batch(LabeledBatch(**moved(batch.labeled)), UnlabeledBatch(**moved(batch.unlabeled)))


def _loss_errors(found: dict[str, float], exact: dict[str, float]) -> dict[str, float]:
    """Relative errors; of parts that are next to nothing, relative to a hundredth of the sum."""
    least = 0.01 * abs(sum(exact.values())) + 1e-12
    return {
        name: _finite(abs(found[name] - value) / max(abs(value), least))
        for name, value in exact.items()
    }


def _gradient_error(found: list[Tensor], exact: list[Tensor]) -> float:
    difference = sum(float((a - b).square().sum()) for a, b in zip(found, exact, strict=True))
    size = sum(float(b.square().sum()) for b in exact)
    return _finite(math.sqrt(difference / max(size, 1e-30)))


def _finite(error: float) -> float:
    """A number that JSON can hold and that no threshold lets pass."""
    return float(f"{error:.3g}") if math.isfinite(error) else 1e9


@contextlib.contextmanager
def _without_tf32() -> Iterator[None]:
    precision, allowed = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = allowed


def training(lab: Lab) -> Iterator[Task]:
    """Speed, memory, idle GPU and waits of runs at two plans."""
    tune_for_training(lab.device)
    preset = {"left-atrium": "left-atrium", "default": "default"}
    runs = [("left-atrium", method, "bfloat16", "") for method in METHODS]
    runs += [("left-atrium", "dycon", name, "") for name in ("float32", "float16")]
    runs += [("default", "dycon", name, "") for name in PRECISIONS]
    runs += [("default", "supervised", "bfloat16", "")]
    runs += [("default", "dycon", "bfloat16", variant) for variant in ("contiguous", "mapped")]
    if lab.quick:
        runs = [run for run in runs if run[2] == "float32"] + runs[:2]
    plans = {
        name: lab.data(lab.config("dycon", chosen, **{"semi_supervised.start": 0.0}))
        for name, chosen in preset.items()
    }
    for number, (plan, method, precision, variant) in enumerate(runs):
        name = " ".join(filter(None, (plan, method, precision, variant)))
        left = len(runs) - number
        yield (
            name,
            partial(_measure, lab, plans[plan], method, PRECISIONS[precision], variant, left),
        )


def _measure(
    lab: Lab, data: TrainingData, method: str, dtype: torch.dtype, variant: str, left: int
) -> Measures:
    """Take steps as a run does, for a share of the time: one of ``left`` runs to measure."""
    seconds = 0.3 if lab.quick else min(0.6 * lab.left() / left, 20.0)
    config = data.config.with_changes(method=method)
    nothing = variant == "mapped"
    with mock.patch.object(
        loader, "reserve_on_device", (lambda *_: None) if nothing else loader.reserve_on_device
    ):
        if lab.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        model = build_model(data, lab.device, channels_last=variant != "contiguous")
        trainer = Trainer(lab, data, config, model, build_stepper(model, lab.device, dtype))
        try:
            warm_up_ms = lab.milliseconds(lambda: trainer.take(WARM_UP))
            flops = trainer.count_flops() if variant == "" else None
            while lab.cuda and not nothing and trainer.step < 60 and not trainer.resident:
                trainer.take(1)
            measures = trainer.run_for(seconds)
            measures["warm-up s"] = warm_up_ms / 1e3
            if flops:
                measures["TFLOP per step"] = flops / 1e12
                measures["TFLOP/s"] = flops / 1e12 * measures["steps/s"]
            if lab.cuda:
                measures |= trainer.watch()
        finally:
            trainer.batches.close()
    return {
        "batch.patch_size": list(config.batch.patch_size or ()),
        "network.filters": list(config.network.filters or ()),
        **measures,
    }


class Trainer:
    """Takes steps and keeps what is measured of them."""

    def __init__(
        self,
        lab: Lab,
        data: TrainingData,
        config: TrainConfig,
        model: TrainedModel,
        stepper: Stepper,
    ) -> None:
        self.lab, self.config, self.model, self.stepper = lab, config, model, stepper
        self.unlabeled = [] if config.method == "supervised" else data.unlabeled
        self.batches = BatchLoader(data, lab.device)
        self.method = build_method(config)
        self.step = 0
        self.losses: list[Tensor] = []
        self.batch_s = 0.0

    @property
    def resident(self) -> bool:
        """Whether all scans lie on the GPU."""
        return isinstance(self.batches._volumes, ResidentVolumes)

    def take(self, count: int) -> None:
        """Take steps; the host goes ahead of the GPU as in a run."""
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
        lab, first = self.lab, self.step
        self.batch_s = 0.0
        lab.synchronize()
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds and self.step - first < MAX_STEPS:
            self.take(1)
        launched = time.perf_counter()
        lab.synchronize()
        end = time.perf_counter()
        count = self.step - first
        finite = [taken for _, taken in self.stepper.read_step_outcomes(wait=True)]
        losses = torch.stack(self.losses).float().tolist()
        few = max(len(losses) // 10, 1)
        start, stop = (sum(part) / few for part in (losses[:few], losses[-few:]))
        good = all(map(math.isfinite, losses)) and (count < FEW_STEPS or stop < start)
        measures: Measures = {
            "ok": bool(good and all(finite)),
            "steps": count,
            "steps/s": count / (end - begin),
            "ms": (end - begin) / count * 1e3,
            "host ahead ms": (end - launched) * 1e3,  # of the GPU, at the end; 0: the GPU waited
            "batch ms": self.batch_s / count * 1e3,
            "loss": [round(start, 4), round(stop, 4)],
            "volumes": "resident" if self.resident else "mapped",
        }
        if lab.cuda:
            measures["peak GiB"] = torch.cuda.max_memory_allocated() / 2**30
            measures["reserved GiB"] = torch.cuda.max_memory_reserved() / 2**30
        return measures

    def count_flops(self) -> int:
        """Operations of convolutions and matrix products in a step, forth and back."""
        with FlopCounterMode(display=False) as counter:
            self.take(1)
        return int(counter.get_total_flops())

    def watch(self) -> Measures:
        """Waits of the host for the GPU in a step, and the share of time without a kernel."""
        measures: Measures = {}
        self.lab.synchronize()
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                self.take(WATCHED)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        waits = [w for w in found if "synchroniz" in str(w.message)]
        places = {f"{w.filename.rsplit('/', 1)[-1]}:{w.lineno}" for w in waits}
        measures["waits/step"] = len(waits) / WATCHED
        if places:
            measures["where"] = sorted(places)[:8]
        try:
            measures["GPU idle"] = self._idle_share()
        except Exception as error:  # CUPTI may be missing, or not be allowed
            measures["GPU idle"] = f"not measured ({str(error).splitlines()[0][:80]})"
        return measures

    def _idle_share(self) -> float:
        """Time without a kernel, from the first to the last of some steps."""
        self.lab.synchronize()
        activities = [torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            self.take(PROFILED)
            self.lab.synchronize()
        kernels = sorted(
            (event.time_range.start, event.time_range.end)
            for event in profile.events()
            if event.device_type == torch.autograd.DeviceType.CUDA
            and not getattr(event, "is_user_annotation", False)  # spans, not kernels
            and not event.name.startswith("Optimizer.")
        )
        if not kernels:
            raise RuntimeError("the profiler saw no kernel")
        busy, end = 0.0, kernels[0][0]
        for start, stop in kernels:
            busy += max(stop - max(start, end), 0.0)
            end = max(end, stop)
        return 1.0 - busy / max(end - kernels[0][0], 1e-9)
