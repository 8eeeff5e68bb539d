"""Consistency of student and teacher: UnCL and the mean squared error of Mean Teacher.

Notation: ``B`` patches, ``C`` classes, patch voxels ``(D, H, W)``; logits are
``(B, C, D, H, W)``. Entropies are in nats.

Each loss of logits wraps one of quantities that a step computes only once: log-probabilities, and
the result of ``compare``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
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


def uncl(
    student_logits: Tensor, teacher_logits: Tensor, beta: float, *, entropy_weight: float = 1.0
) -> Tensor:
    """Compute the uncertainty-aware consistency loss (DyCON, Assefa et al., CVPR 2025, Eq. 1).

    ``mean over voxels of [ Σ_c (p^s_c - p^t_c)² / (exp(β H(p^s)) + exp(β H(p^t)))
    + entropy_weight · β (H(p^s) + H(p^t)) ]``

    The distance is down-weighted where the networks are uncertain; the second term prevents them
    from becoming uncertain everywhere. It also favors overconfidence, hence ``entropy_weight`` (1.0
    in the paper). The teacher receives no gradient.

    Parameters
    ----------
    student_logits, teacher_logits : (B, C, D, H, W)
    beta : sharpness β ≥ 0, see ``schedules.adaptive_beta``

    Returns
    -------
    scalar tensor
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"student logits {tuple(student_logits.shape)} and teacher logits "
            f"{tuple(teacher_logits.shape)} must have the same shape"
        )
    comparison = compare(
        compute_log_probabilities(student_logits), compute_log_probabilities(teacher_logits)
    )
    return uncl_from_comparison(comparison, beta, entropy_weight=entropy_weight)


def uncl_from_comparison(
    comparison: Comparison, beta: float, *, entropy_weight: float = 1.0
) -> Tensor:
    """Compute ``uncl`` from an existing comparison."""
    distance, h_s, h_t = comparison
    # 1 / (e^a + e^b) = sigmoid(b - a) e^-b: stays finite for any β.
    weight = torch.sigmoid(beta * (h_t - h_s)) * torch.exp(-beta * h_t)
    return mean_or_zero(distance * weight + entropy_weight * beta * (h_s + h_t))


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
