"""Steps are atomic, also when the device decides whether they are taken."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from helpers.tiny_runs import TINY
from torch.utils._python_dispatch import TorchDispatchMode

from napari_dycon.engine.config import TrainConfig, make_config
from napari_dycon.engine.data.patches import Batch, LabeledBatch, UnlabeledBatch
from napari_dycon.engine.device import is_out_of_memory
from napari_dycon.engine.methods.base import StepInputs
from napari_dycon.engine.methods.mean_teacher import MeanTeacher
from napari_dycon.engine.methods.supervised import Supervised
from napari_dycon.engine.network import build_network
from napari_dycon.engine.training.optimizer import allocate_state, build_optimizer
from napari_dycon.engine.training.stepper import (
    MAX_LOSS_SCALE,
    LossScale,
    PartialUpdateError,
    Stepper,
)

CPU = torch.device("cpu")


class NotFinite:
    """A method whose loss and gradients are not finite."""

    def compute_loss_terms(self, step: StepInputs) -> dict[str, torch.Tensor]:
        return {"supervised": step.student(step.batch.labeled.image).logits.mean() * torch.nan}


def make_batch(config: TrainConfig, seed: int = 0) -> Batch:
    noise = torch.Generator().manual_seed(seed)
    assert config.batch.patch_size is not None
    image = torch.randn(2, 1, *config.batch.patch_size, generator=noise)
    place = torch.full((2, 3), 0.5)
    return Batch(
        LabeledBatch(image, (image[:, 0] > 0).long(), place, place),
        UnlabeledBatch(image + 1, place, place),
    )


def make_stepper(
    deferred: bool, dtype: torch.dtype = torch.float32, **changes: Any
) -> tuple[Stepper, TrainConfig]:
    config = make_config("mean-teacher", **(TINY | changes))
    torch.manual_seed(0)
    student = build_network(config, 1, 2).to(memory_format=torch.channels_last_3d)
    teacher = copy.deepcopy(student).requires_grad_(False)
    optimizer = build_optimizer(config, student)
    if deferred:  # as on CUDA
        kinds = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
        options: dict[str, Any] = {"momentum": 0.9} if config.optimizer.name == "sgd" else {}
        optimizer = kinds[config.optimizer.name](
            student.parameters(), lr=1e-2, fused=True, **options
        )
    allocate_state(optimizer)
    student.train()
    teacher.train()
    return Stepper(student, teacher, optimizer, CPU, dtype, is_deferred=deferred), config


def collect_tensors(stepper: Stepper) -> list[torch.Tensor]:
    """Copies of all that a step may change."""
    networks = (*stepper.student.state_dict().values(), *stepper.teacher.state_dict().values())
    slots = stepper.optimizer.state_dict()["state"].values()
    state = [value for slot in slots for value in slot.values() if isinstance(value, torch.Tensor)]
    return [value.clone() for value in (*networks, *state)]


def are_equal(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    return len(one) == len(two) and all(map(torch.equal, one, two))


@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("deferred", [False, True])
def test_a_nonfinite_step_changes_no_weights(deferred: bool, optimizer: str, norm: str) -> None:
    stepper, config = make_stepper(deferred, **{"optimizer.name": optimizer, "network.norm": norm})
    batch = make_batch(config)
    stepper.step(0, config, MeanTeacher(config), batch, 0.5, 1e-2)
    before = collect_tensors(stepper)
    stepper.step(1, config, NotFinite(), batch, 0.5, 1e-2)
    assert are_equal(before, collect_tensors(stepper))
    stepper.step(2, config, MeanTeacher(config), batch, 0.5, 1e-2)
    assert not are_equal(before, collect_tensors(stepper))
    assert stepper.read_step_outcomes(wait=True) == [(0, True), (1, False), (2, True)]
    assert stepper.read_step_outcomes(wait=True) == []


class _Waits(TorchDispatchMode):
    """Counts operations for which a host would wait for its device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(name in str(func) for name in ("_local_scalar_dense", "nonzero", "is_nonzero")):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", [Supervised, MeanTeacher])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_deferred_step_never_synchronizes_with_its_device(
    method: Any, dtype: torch.dtype
) -> None:
    stepper, config = make_stepper(
        True, dtype, **{"network.norm": "batch", "batch.accumulation_steps": 1}
    )
    batch = make_batch(config)
    with _Waits() as waits:
        stepper.step(0, config, method(config), batch, 0.5, 1e-2)
    # Fused AdamW on a CPU reads its own flag: its kernel is no part of the step's operations.
    assert waits.seen == []
    immediate, config = make_stepper(False)
    with _Waits() as waits:
        immediate.step(0, config, method(config), batch, 0.5, 1e-2)
    assert waits.seen


def test_deferred_steps_give_the_same_weights() -> None:
    steppers = [make_stepper(deferred)[0] for deferred in (False, True)]
    config = make_stepper(False)[1]
    for stepper in steppers:
        for step in range(3):
            stepper.step(step, config, MeanTeacher(config), make_batch(config, step), 0.5, 1e-3)
    for one, two in zip(collect_tensors(steppers[0]), collect_tensors(steppers[1]), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_accumulated_gradients_equal_those_of_the_whole_batch() -> None:
    class Mean:
        """A loss that is a mean over patches, as those of the methods are."""

        def compute_loss_terms(self, step: StepInputs) -> dict[str, torch.Tensor]:
            labeled = step.student(step.batch.labeled.image).logits.square().mean()
            unlabeled = step.student(step.unlabeled.image).logits.square().mean()
            return {"supervised": labeled, "consistency": 0.3 * unlabeled}

    changes = {"batch.labeled_size": 2, "batch.unlabeled_size": 2}
    found = []
    for parts in (1, 2):
        stepper, config = make_stepper(False, **{"batch.accumulation_steps": parts}, **changes)
        reported, loss = stepper.step(0, config, Mean(), make_batch(config), 0.5, 1e-3)
        found.append(([*reported.values(), loss], collect_tensors(stepper)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_allocating_the_optimizer_state_changes_no_step() -> None:
    results = []
    for ahead in (False, True):
        for kind in ("adamw", "sgd"):
            config = make_config("supervised", **(TINY | {"optimizer.name": kind}))
            torch.manual_seed(0)
            student = build_network(config, 1, 2)
            optimizer = build_optimizer(config, student)
            before = [p.clone() for p in student.parameters()]
            if ahead:
                allocate_state(optimizer)
                assert all(map(torch.equal, before, student.parameters()))
            stepper = Stepper(student, copy.deepcopy(student), optimizer, CPU, torch.float32)
            for step in range(2):
                stepper.step(step, config, Supervised(config), make_batch(config), 0.0, 1e-2)
            # Layers that a method does not use get a state of zeros.
            networks = (student, stepper.teacher)
            results.append([v for network in networks for v in network.state_dict().values()])
    assert are_equal(results[0], results[2])
    assert are_equal(results[1], results[3])


def test_lack_of_memory_leaves_all_state_unchanged() -> None:
    class TooLarge:
        def compute_loss_terms(self, step: StepInputs) -> dict[str, torch.Tensor]:
            step.student(step.batch.labeled.image)  # moves the running statistics
            raise RuntimeError("CUDA out of memory.")

    stepper, config = make_stepper(False, **{"network.norm": "batch"})
    before = collect_tensors(stepper)
    for work in (
        lambda: stepper.step(0, config, TooLarge(), make_batch(config), 0.5, 1e-2),
        lambda: stepper.dry_run(config, TooLarge(), make_batch(config)),
    ):
        with pytest.raises(RuntimeError, match="out of memory"):
            work()
        assert are_equal(before, collect_tensors(stepper))
        assert all(p.grad is None for p in stepper.student.parameters())
    stepper.dry_run(config, MeanTeacher(config), make_batch(config))
    assert are_equal(before, collect_tensors(stepper))


def test_a_partial_update_raises_its_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stepper, config = make_stepper(False)

    def refuse() -> None:
        raise RuntimeError("CUDA out of memory.")

    monkeypatch.setattr(stepper.optimizer, "step", refuse)
    with pytest.raises(PartialUpdateError) as reported:
        stepper.step(0, config, Supervised(config), make_batch(config), 0.5, 1e-2)
    assert is_out_of_memory(reported.value)


def test_the_scale_of_a_float16_loss_follows_its_overflows() -> None:
    scale = LossScale.create(CPU)
    yes, no = torch.tensor(True), torch.tensor(False)
    scale.update(no)
    scale.update(no)
    assert scale.to_json() == [MAX_LOSS_SCALE / 4, 0.0]
    for _ in range(499):
        scale.update(yes)
    assert scale.to_json() == [MAX_LOSS_SCALE / 4, 499.0]
    again = LossScale.from_json(scale.to_json(), CPU)
    again.update(yes)
    assert again.to_json() == [MAX_LOSS_SCALE / 2, 0.0]
    for _ in range(40):
        again.update(no)
    assert again.to_json()[0] == 1.0
    for damaged in (None, [], [0.0, 1.0], ["a", "b"], [float("nan"), 0.0]):
        assert LossScale.from_json(damaged, CPU).to_json() == [MAX_LOSS_SCALE, 0.0]


def test_float16_overflows_are_skipped_without_a_warning() -> None:
    class Overflowing:
        """The loss is finite, the gradients scaled by 2**16 are not."""

        def compute_loss_terms(self, step: StepInputs) -> dict[str, torch.Tensor]:
            logits = step.student(step.batch.labeled.image).logits
            return {"supervised": (logits.float() * 1e6).mean()}

    stepper, config = make_stepper(True, torch.float16)
    before = collect_tensors(stepper)
    stepper.step(0, config, Overflowing(), make_batch(config), 0.5, 1e-2)
    assert are_equal(before, collect_tensors(stepper))
    assert stepper.read_step_outcomes(wait=True) == [(0, True)]
    assert stepper.loss_scale is not None
    assert stepper.loss_scale.to_json()[0] == MAX_LOSS_SCALE / 2
    stepper.step(1, config, Supervised(config), make_batch(config), 0.5, 1e-2)
    assert not are_equal(before, collect_tensors(stepper))
