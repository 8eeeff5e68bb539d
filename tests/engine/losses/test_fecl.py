"""The focal entropy-aware contrastive loss, compared with a reference in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from napari_dycon.engine.losses.fecl import fecl
from napari_dycon.engine.losses.secl import secl


def compute_fecl_reference(
    z: torch.Tensor,
    labels: torch.Tensor,
    entropy: torch.Tensor,
    z_t: torch.Tensor | None = None,
    *,
    tau: float = 0.6,
    gamma: float = 2.0,
    negative_gamma: float = 0.0,
    teacher_weight: float = 0.0,
    threshold: float = 0.5,
) -> torch.Tensor:
    """The formula pair by pair; autograd of it is the gradient of the formula."""
    anchors, far = [], []
    for b in range(z.shape[0]):
        y = labels[b].tolist()
        n = len(y)
        for i in range(n):
            if y[i] < 0:
                continue
            positives = [k for k in range(n) if k != i and y[k] == y[i]]
            negatives = [q for q in range(n) if y[q] >= 0 and y[q] != y[i]]
            for q in negatives:
                if z_t is not None and (s_t := z[b, i] @ z_t[b, q].detach()) > threshold:
                    far.append(-torch.log(torch.clamp(1 - s_t, min=1e-4)))
            if not positives:
                continue
            e = [torch.exp(z[b, i] @ z[b, k] / tau) for k in range(n)]
            focus = {q: float(e[q].detach()) ** negative_gamma for q in negatives}
            rest = torch.zeros((), dtype=z.dtype)
            for q in negatives:
                rest = rest + focus[q] / (sum(focus.values()) / len(focus)) * e[q]
            part = torch.zeros((), dtype=z.dtype)
            for k in positives:
                s = e[k] / (e[k] + rest)
                part = part - (1 - s) ** gamma * math.exp(float(entropy[b, i])) * torch.log(s)
            anchors.append(part / len(positives))
    loss = torch.stack(anchors).mean() if anchors else z.sum() * 0
    return loss + teacher_weight * torch.stack(far).mean() if far else loss


def make_locations(seed: int, n: int = 12, classes: int = 3) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    z = F.normalize(torch.randn(2, n, 5, generator=g, dtype=torch.float64), dim=2)
    z_t = F.normalize(torch.randn(2, n, 5, generator=g, dtype=torch.float64), dim=2)
    labels = torch.randint(-1, classes, (2, n), generator=g)
    return z, z_t, labels, torch.rand(2, n, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("negative_gamma", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("teacher_weight", [None, 0.0, 1.0, 0.4])
@pytest.mark.parametrize("budget", [2**24, 2 * 12 * 5, 1])
def test_fecl_equals_its_formula(
    negative_gamma: float, teacher_weight: float | None, budget: int
) -> None:
    z, z_t, labels, h = make_locations(3)
    assert {-1, 0, 1, 2} <= set(labels.flatten().tolist())
    labels[1].clamp_(max=0)  # a patch without negatives counts with zeros
    settings = {"negative_gamma": negative_gamma, "teacher_weight": teacher_weight or 0.0}
    teacher_embeddings = None if teacher_weight is None else z_t
    mine, slow = z.clone().requires_grad_(), z.clone().requires_grad_()
    loss = fecl(mine, labels, h, teacher_embeddings, threshold=0.2, pair_budget=budget, **settings)
    expected = compute_fecl_reference(
        slow, labels, h, teacher_embeddings, threshold=0.2, **settings
    )
    assert loss.dtype == torch.float64
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-8)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(mine.grad, slow.grad, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("tau", "gamma"), [(0.6, 0.0), (0.6, 0.5), (0.2, 1.0), (0.05, 3.0)])
def test_fecl_equals_its_formula_with_other_constants(tau: float, gamma: float) -> None:
    z, z_t, labels, h = make_locations(8)
    mine, slow = z.clone().requires_grad_(), z.clone().requires_grad_()
    loss = fecl(mine, labels, h, z_t, temperature=tau, gamma=gamma, negative_gamma=1.0)
    expected = compute_fecl_reference(slow, labels, h, tau=tau, gamma=gamma, negative_gamma=1.0)
    torch.testing.assert_close(loss, expected, rtol=1e-7, atol=0)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(mine.grad, slow.grad, rtol=1e-6, atol=1e-9)


def test_fecl_of_one_pair_equals_a_manual_calculation() -> None:
    """Three cells in a plane: a pair at a right angle, and a negative opposite to the first."""
    z = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]], dtype=torch.float64)
    labels = torch.tensor([[1, 1, 0]])
    first = 1 / (1 + math.exp(-1 / 0.6))  # e_01 = 1 against e_02
    second = 1 / (1 + 1)  # e_10 = 1 against e_12 = 1
    expected = -((1 - first) ** 2 * math.log(first) + (1 - second) ** 2 * math.log(second)) / 2
    h = torch.zeros(1, 3, dtype=torch.float64)
    assert float(fecl(z, labels, h)) == pytest.approx(expected)
    assert float(fecl(z, labels, h + 1)) == pytest.approx(expected * math.e)
    # The teacher's third cell comes near the student's second: one pair above the threshold.
    z_t = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-0.6, 0.8]]], dtype=torch.float64)
    with_teacher = fecl(z, labels, h, z_t, teacher_weight=1.0)
    assert float(with_teacher) == pytest.approx(expected - math.log(1 - 0.8))
    same = fecl(z, labels, h, z.flip(1), teacher_weight=1.0)  # as near as can be
    assert float(same) == pytest.approx(expected - math.log(1e-4))


def test_negatives_of_the_teacher_below_the_threshold_add_nothing() -> None:
    z, z_t, labels, h = make_locations(3)
    without = fecl(z, labels, h)
    assert torch.equal(fecl(z, labels, h, z_t, teacher_weight=1.0, threshold=1.0), without)
    assert torch.equal(fecl(z, labels, h, z_t), without)
    assert fecl(z, labels, h, z_t, teacher_weight=1.0, threshold=0.1) > without


def test_fecl_does_not_propagate_gradients_to_the_teacher() -> None:
    z, z_t, labels, h = make_locations(3)
    z.requires_grad_()
    z_t.requires_grad_()
    h.requires_grad_()
    fecl(z, labels, h, z_t, teacher_weight=1.0, threshold=0.1, negative_gamma=1.0).backward()
    assert z_t.grad is None
    assert h.grad is None
    assert torch.count_nonzero(z.grad) > 0


def test_the_gradient_of_fecl_is_correct() -> None:
    """All its gradient flows through S and X, so that finite differences know it."""
    z, z_t, labels, h = make_locations(6, n=5)
    for gamma in (0.0, 2.0):
        for budget in (2**24, 10):
            assert torch.autograd.gradcheck(
                lambda x, gamma=gamma, budget=budget: fecl(
                    x, labels, h, z_t, gamma=gamma, teacher_weight=1.0, pair_budget=budget
                ),
                z.clone().requires_grad_(),
            )


@pytest.mark.parametrize("temperature", [0.6, 0.02, 0.01])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fecl_of_one_class_is_an_exact_zero(temperature: float, dtype: torch.dtype) -> None:
    """Without negatives D is the positive alone, and the logarithm is that of 1."""
    z = F.normalize(torch.randn(1, 6, 4, dtype=dtype), dim=2).requires_grad_()
    same = torch.tensor([[1, 1, 1, -1, 1, 1]])
    loss = fecl(z, same, torch.rand(1, 6), z.detach(), temperature=temperature, teacher_weight=1.0)
    assert float(loss.detach()) == 0.0
    loss.backward()
    assert torch.equal(z.grad, torch.zeros_like(z))


@pytest.mark.parametrize(("batch", "cells"), [(0, 4), (2, 0), (2, 4)])
def test_fecl_of_nothing_is_an_exact_zero(batch: int, cells: int) -> None:
    z = torch.randn(batch, cells, 3).requires_grad_()
    labels, h = torch.full((batch, cells), -1), torch.zeros(batch, cells)
    loss = fecl(z, labels, h, z.detach(), negative_gamma=1.0, teacher_weight=1.0)
    assert float(loss.detach()) == 0.0
    loss.backward()
    assert torch.equal(z.grad, torch.zeros_like(z))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fecl_is_the_same_in_row_blocks(dtype: torch.dtype) -> None:
    z, z_t, labels, h = make_locations(5, n=33)
    z, z_t, h = z.to(dtype), z_t.to(dtype), h.to(dtype)
    whole, blocks = z.clone().requires_grad_(), z.clone().requires_grad_()
    settings = {"negative_gamma": 1.0, "teacher_weight": 1.0}
    a = fecl(whole, labels, h, z_t, **settings)
    b = fecl(blocks, labels, h, z_t, pair_budget=2 * 33 * 4, **settings)
    a.backward()
    b.backward()
    torch.testing.assert_close(a, b, rtol=1e-5, atol=0)
    torch.testing.assert_close(whole.grad, blocks.grad, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("loss", ["fecl", "secl"])
def test_blocks_limit_the_memory_of_pairs(loss: str) -> None:
    """What autograd keeps of a step is far less than one matrix of all pairs."""
    z, z_t, labels, h = make_locations(5, n=200)
    kept: list[int] = []

    def pack(x: torch.Tensor) -> torch.Tensor:
        kept.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        if loss == "fecl":
            fecl(z.requires_grad_(), labels, h, z_t, pair_budget=2000, teacher_weight=1.0)
        else:
            secl(z.requires_grad_(), z_t, labels, pair_budget=2000)
    assert max(kept) <= z.numel()


def test_fecl_without_a_valid_anchor_is_zero_with_a_gradient_path() -> None:
    z = F.normalize(torch.randn(1, 4, 3), dim=2).requires_grad_()
    loss = fecl(z, torch.tensor([[0, 1, -1, 2]]), torch.zeros(1, 4))
    assert float(loss.detach()) == 0.0
    loss.backward()
    assert torch.equal(z.grad, torch.zeros_like(z))


@pytest.mark.parametrize("temperature", [0.6, 0.01])
def test_fecl_is_finite_for_extreme_inputs(temperature: float) -> None:
    z = torch.ones(1, 6, 1) * (1 + 5e-7)  # s slightly above 1
    z = torch.cat([z, -z], dim=1).requires_grad_()
    labels = torch.tensor([[0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1]])
    h = torch.ones(1, 12)
    loss = fecl(z, labels, h, z.detach(), temperature=temperature, teacher_weight=1.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()


def test_ignored_locations_change_nothing() -> None:
    z, z_t, labels, h = make_locations(7)
    labels[:, :3] = -1
    other = z.clone()
    other[:, :3] = F.normalize(torch.randn(2, 3, 5, dtype=torch.float64), dim=2)
    settings = {"negative_gamma": 1.0, "teacher_weight": 1.0, "threshold": 0.0}
    assert torch.equal(fecl(z, labels, h, z_t, **settings), fecl(other, labels, h, z_t, **settings))
    other = z_t.clone()
    other[:, :3] = -other[:, :3]
    assert torch.equal(fecl(z, labels, h, z_t, **settings), fecl(z, labels, h, other, **settings))


def test_a_patch_with_one_class_does_not_spoil_other_gradients() -> None:
    """Anchors without negatives stand beside others: their zeros must not become NaN."""
    z, z_t, labels, h = make_locations(9)
    z = z.float().requires_grad_()
    labels[0] = 1
    for negative_gamma in (0.0, 2.0):
        loss = fecl(z, labels, h, z_t, negative_gamma=negative_gamma, teacher_weight=1.0)
        (gradient,) = torch.autograd.grad(loss, z)
        assert torch.count_nonzero(gradient[0]) == 0
        assert torch.isfinite(gradient).all()
        assert torch.count_nonzero(gradient[1]) > 0


def test_fecl_refuses_mismatched_shapes() -> None:
    z, z_t, labels, h = make_locations(3)
    with pytest.raises(
        ValueError, match=r"labels \(2, 5\) and entropy \(2, 12\) must be \(2, 12\)"
    ):
        fecl(z, labels[:, :5], h)
    with pytest.raises(ValueError, match=r"\(2, 12, 5\) and teacher embeddings \(2, 5, 5\)"):
        fecl(z, labels, h, z_t[:, :5])
