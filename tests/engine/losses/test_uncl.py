"""The uncertainty-aware consistency loss, compared with a reference in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from napari_dycon.engine.losses.uncl import uncl


def compute_uncl_reference(
    student: torch.Tensor, teacher: torch.Tensor, beta: float, entropy_weight: float = 1.0
) -> float:
    total, count = 0.0, 0
    for b in range(student.shape[0]):
        for voxel in range(student[b, 0].numel()):
            p_s = F.softmax(student[b].flatten(1)[:, voxel], dim=0)
            p_t = F.softmax(teacher[b].flatten(1)[:, voxel], dim=0)
            h_s = -sum(float(p) * math.log(float(p)) for p in p_s)
            h_t = -sum(float(p) * math.log(float(p)) for p in p_t)
            distance = sum((float(a) - float(c)) ** 2 for a, c in zip(p_s, p_t, strict=True))
            total += distance / (math.exp(beta * h_s) + math.exp(beta * h_t))
            total += entropy_weight * beta * (h_s + h_t)
            count += 1
    return total / count


@pytest.mark.parametrize("beta", [0.5, 2.0, 5.0])
def test_uncl_equals_its_formula(beta: float) -> None:
    g = torch.Generator().manual_seed(1)
    student, teacher = torch.randn(2, 2, 3, 2, 3, 2, generator=g, dtype=torch.float64) * 2
    for weight in (1.0, 0.3, 0.0):
        expected = compute_uncl_reference(student, teacher, beta, weight)
        found = uncl(student, teacher, beta, entropy_weight=weight)
        assert float(found) == pytest.approx(expected, rel=1e-10)


def test_uncl_gives_the_teacher_no_gradient_and_stays_finite() -> None:
    student = (torch.randn(1, 2, 4, 4, 4) * 300).requires_grad_()
    teacher = (torch.randn(1, 2, 4, 4, 4) * 300).requires_grad_()
    loss = uncl(student, teacher, 5.0)
    loss.backward()
    assert teacher.grad is None
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


def test_uncl_refuses_mismatched_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2, 3, 3, 3\) and teacher logits \(1, 3"):
        uncl(torch.zeros(1, 2, 3, 3, 3), torch.zeros(1, 3, 3, 3, 3), 1.0)
