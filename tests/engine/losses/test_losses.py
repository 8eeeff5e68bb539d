"""Losses, compared with references in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

from napari_dycon.engine.losses.consistency import consistency_mse
from napari_dycon.engine.losses.feature_grid import (
    downsample_entropy_from_log_p,
    downsample_labels,
    downsample_pseudo_labels,
)
from napari_dycon.engine.losses.fecl import fecl
from napari_dycon.engine.losses.probability import compute_log_probabilities
from napari_dycon.engine.losses.secl import secl
from napari_dycon.engine.losses.supervised import supervised_loss
from napari_dycon.engine.losses.uncl import uncl


def compute_supervised_reference(logits: torch.Tensor, label: torch.Tensor) -> float:
    classes = logits.shape[1]
    entropies, overlap, total = [], [0.0] * classes, [0.0] * classes
    present: set[int] = set()
    for b in range(len(logits)):
        for p, y in zip(
            F.softmax(logits[b].flatten(1), dim=0).T.tolist(),
            label[b].flatten().tolist(),
            strict=True,
        ):
            if y == 255:
                continue
            entropies.append(-math.log(p[y]))
            present.add(y)
            overlap[y] += p[y]
            total[y] += 1.0
            for c in range(classes):
                total[c] += p[c]
    dice = [1 - (2 * overlap[c] + 1e-5) / (total[c] + 1e-5) for c in present - {0}]
    cross_entropy = sum(entropies) / len(entropies) if entropies else 0.0
    return cross_entropy + (sum(dice) / len(dice) if dice else 0.0)


def test_losses_never_synchronize_with_the_device() -> None:
    """Fake tensors have no values: asking for one, as for an index, is an error."""
    with FakeTensorMode():
        logits = torch.zeros(2, 3, 8, 8, 8, requires_grad=True)
        label = torch.zeros(2, 8, 8, 8, dtype=torch.long)
        z, z_t = torch.zeros(2, 8, 4, requires_grad=True), torch.zeros(2, 8, 4)
        grid, log_p = (2, 2, 2), compute_log_probabilities(logits)
        y = downsample_labels(label, 3, grid)
        downsample_pseudo_labels(log_p.exp(), grid, 0.8)
        h = downsample_entropy_from_log_p(log_p, grid)
        for budget in (2**24, 32):
            contrast = fecl(
                z, y, h, z_t, negative_gamma=1.0, teacher_weight=1.0, pair_budget=budget
            ) + secl(z, z_t, y, pair_budget=budget)
            contrast.backward()
        voxels = supervised_loss(logits, label) + uncl(logits, logits, 2.0)
        (voxels + consistency_mse(logits, logits)).backward()
        with pytest.raises(DynamicOutputShapeException):
            z[y > 0]


@pytest.mark.parametrize("case", ["dense", "sparse", "one class missing", "background", "nothing"])
def test_the_supervised_loss_equals_its_formula(case: str) -> None:
    g = torch.Generator().manual_seed(5)
    logits = torch.randn(2, 3, 3, 2, 3, generator=g, dtype=torch.float64) * 2
    label = torch.randint(0, 3, (2, 3, 2, 3), generator=g)
    if case == "sparse":
        label[0, 1:] = 255
    elif case == "one class missing":
        label[label == 2] = 1
    elif case == "background":
        label[:] = 0
    elif case == "nothing":
        label[:] = 255
    found = supervised_loss(logits.requires_grad_(), label)
    assert float(found.detach()) == pytest.approx(
        compute_supervised_reference(logits.detach(), label)
    )
    found.backward()
    assert torch.isfinite(logits.grad).all()


def test_the_consistency_loss_is_a_mean_of_squares() -> None:
    g = torch.Generator().manual_seed(5)
    student, teacher = torch.randn(2, 2, 3, 2, 2, 2, generator=g, dtype=torch.float64)
    teacher.requires_grad_()
    student.requires_grad_()
    squares = []
    for b in range(2):
        for voxel in range(8):
            p_s = F.softmax(student.detach()[b].flatten(1)[:, voxel], dim=0).tolist()
            p_t = F.softmax(teacher.detach()[b].flatten(1)[:, voxel], dim=0).tolist()
            squares += [(a - c) ** 2 for a, c in zip(p_s, p_t, strict=True)]
    loss = consistency_mse(student, teacher)
    assert float(loss.detach()) == pytest.approx(sum(squares) / len(squares))
    loss.backward()
    assert teacher.grad is None


def test_losses_of_an_empty_half_are_an_exact_zero() -> None:
    for loss in (lambda x: uncl(x, x, 2.0), lambda x: consistency_mse(x, x)):
        student = torch.zeros(0, 3, 4, 4, 4, requires_grad=True)
        value = loss(student)
        assert float(value.detach()) == 0.0
        value.backward()
        assert student.grad is not None


def test_unannotated_voxels_are_ignored() -> None:
    logits = torch.randn(2, 3, 4, 4, 4, requires_grad=True)
    label = torch.randint(0, 3, (2, 4, 4, 4))
    label[:, :2] = 255
    supervised_loss(logits, label).backward()
    assert torch.count_nonzero(logits.grad[:, :, :2]) == 0
    assert torch.count_nonzero(logits.grad[:, :, 2:]) > 0


def test_a_perfect_prediction_costs_nearly_nothing() -> None:
    label = torch.randint(0, 3, (1, 6, 6, 6))
    logits = F.one_hot(label, 3).movedim(-1, 1).float() * 40
    assert float(supervised_loss(logits, label)) < 1e-4
    assert float(supervised_loss(-logits, label)) > 1.5


def test_gradients_are_correct() -> None:
    g = torch.Generator().manual_seed(4)
    student, teacher = torch.randn(2, 2, 3, 2, 2, 2, generator=g, dtype=torch.float64)
    student.requires_grad_()
    label = torch.randint(0, 3, (2, 2, 2, 2), generator=g)
    label[0, 0] = 255
    for loss in (
        lambda x: uncl(x, teacher, 2.0),
        lambda x: supervised_loss(x, label),
        lambda x: consistency_mse(x, teacher),
    ):
        assert torch.autograd.gradcheck(loss, student)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_finite_in_half_precision(dtype: torch.dtype) -> None:
    student = (torch.randn(1, 3, 4, 4, 4) * 30).to(dtype)
    label = torch.randint(0, 3, (1, 4, 4, 4))
    z = F.normalize(torch.randn(1, 8, 4), dim=2).to(dtype)
    y, h = torch.randint(0, 2, (1, 8)), torch.rand(1, 8)
    for loss in (
        uncl(student, -student, 5.0),
        supervised_loss(student, label),
        consistency_mse(student, -student),
        fecl(z, y, h, z, temperature=0.05, negative_gamma=1.0, teacher_weight=1.0),
    ):
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss)
