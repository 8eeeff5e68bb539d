"""Consistency of student and teacher: their distance, and the loss of Mean Teacher.

Notation: ``B`` patches, ``C`` classes, patch voxels ``(D, H, W)``; logits are
``(B, C, D, H, W)``. Entropies are in nats.

A loss of logits wraps one of quantities that a step computes only once: log-probabilities, and the
result of ``compare``.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from napari_dycon.engine.losses.probability import (
    compute_log_probabilities,
    entropy_from_probabilities,
    mean_or_zero,
)


class Comparison(NamedTuple):
    """Student and teacher at each voxel, each ``(B, D, H, W)``; no gradient to the teacher."""

    distance: Tensor  # Σ_c (p^s_c - p^t_c)²
    student_entropy: Tensor
    teacher_entropy: Tensor


def compare(student_log_p: Tensor, teacher_log_p: Tensor) -> Comparison:
    """Compare ``(B, C, D, H, W)`` log-probabilities voxel by voxel."""
    teacher_log_p = teacher_log_p.detach()
    p_s, p_t = student_log_p.exp(), teacher_log_p.exp()
    return Comparison(
        (p_s - p_t).square().sum(dim=1),
        entropy_from_probabilities(p_s, student_log_p),
        entropy_from_probabilities(p_t, teacher_log_p),
    )


def consistency_mse(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Compute the mean squared distance of the softmax outputs (Mean Teacher, NeurIPS 2017)."""
    return consistency_from_log_probabilities(
        compute_log_probabilities(student_logits), compute_log_probabilities(teacher_logits)
    )


def consistency_from_log_probabilities(student_log_p: Tensor, teacher_log_p: Tensor) -> Tensor:
    """Compute ``consistency_mse`` from ``(B, C, D, H, W)`` log-probabilities."""
    return mean_or_zero((student_log_p.exp() - teacher_log_p.detach().exp()).square())


def consistency_from_distance(distance: Tensor, classes: int) -> Tensor:
    """Compute ``consistency_mse`` from the ``distance`` of a ``Comparison``."""
    return mean_or_zero(distance) / classes
