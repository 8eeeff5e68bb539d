"""Voxel losses: supervised CE + Dice with unannotated voxels, UnCL, and the consistency MSE.

Notation: ``B`` patches, ``C`` classes (0 is background), patch voxels ``(D, H, W)``; logits are
``(B, C, D, H, W)``, labels ``(B, D, H, W)``. Entropies are in nats. Everything is computed in at
least float32, also under autocast.

Each loss of logits is a thin cover of one that takes what a step computes once: log-probabilities
(see ``compute_log_probabilities``), and what ``compare`` says of student and teacher.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_dycon.core.types import UNANNOTATED


def upcast(x: Tensor) -> Tensor:
    """Half-precision tensors in float32, others as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def compute_log_probabilities(logits: Tensor) -> Tensor:
    """log p of ``(B, C, ...)`` logits, in at least float32."""
    with torch.autocast(logits.device.type, enabled=False):
        return F.log_softmax(upcast(logits), dim=1)


def predictive_entropy(log_probabilities: Tensor) -> Tensor:
    """H(p) = -Σ_c p_c log p_c in nats over dimension 1: ``(B, C, ...)`` to ``(B, ...)``."""
    return _entropy(log_probabilities.exp(), log_probabilities)


def _entropy(p: Tensor, log_p: Tensor) -> Tensor:
    return -(p * log_p).sum(dim=1)


def supervised_loss(logits: Tensor, label: Tensor, *, smooth: float = 1e-5) -> Tensor:
    """Cross-entropy plus soft Dice over annotated voxels, of equal weight.

    Voxels with label 255 take no part, which makes sparse annotation possible. Dice is taken over
    the whole batch and averaged over the foreground classes that occur in it, so that a class that
    is absent from all patches neither rewards nor punishes.

    Parameters
    ----------
    logits : (B, C, D, H, W)
    label : (B, D, H, W), int64, 255 where nobody annotated
    """
    return supervised_from_log_probabilities(
        compute_log_probabilities(logits), label, smooth=smooth
    )


def supervised_from_log_probabilities(
    log_p: Tensor, label: Tensor, *, smooth: float = 1e-5
) -> Tensor:
    """``supervised_loss`` of ``(B, C, D, H, W)`` log-probabilities."""
    is_unannotated = label == UNANNOTATED
    target = label.masked_fill(is_unannotated, 0)
    target_log_p = log_p.gather(1, target[:, None]).squeeze(1)  # (B, D, H, W), of the true class
    n_annotated = (~is_unannotated).sum().clamp(min=1)
    cross_entropy = -target_log_p.masked_fill(is_unannotated, 0.0).sum() / n_annotated

    p = log_p.exp().masked_fill(is_unannotated[:, None], 0.0)
    predicted = p.sum((0, *range(2, p.ndim)))[1:]  # (C - 1,)
    # A class at a time instead of a one-hot label, which would be as large as the logits.
    target_p = target_log_p.exp()
    other_class = [label != c for c in range(1, log_p.shape[1])]
    overlap = torch.stack([target_p.masked_fill(other, 0.0).sum() for other in other_class])
    class_sizes = torch.stack([(~other).sum() for other in other_class])  # voxels
    dice = 1.0 - (2.0 * overlap + smooth) / (predicted + class_sizes + smooth)
    is_present = class_sizes > 0
    return cross_entropy + (dice * is_present).sum() / is_present.sum().clamp(min=1)


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
        _entropy(p_s, student_log_p),
        _entropy(p_t, teacher_log_p),
    )


def uncl(
    student_logits: Tensor, teacher_logits: Tensor, beta: float, *, entropy_weight: float = 1.0
) -> Tensor:
    """Uncertainty-aware consistency loss (DyCON, Assefa et al., CVPR 2025, Eq. 1).

    ``mean over voxels of [ Σ_c (p^s_c - p^t_c)² / (exp(β H(p^s)) + exp(β H(p^t)))
    + entropy_weight · β (H(p^s) + H(p^t)) ]``

    Where both networks are sure the distance counts fully, where they are unsure it fades; the
    second term keeps them from becoming unsure everywhere. It also pushes towards over-confidence,
    hence ``entropy_weight`` (1.0 is the paper). The teacher receives no gradient.

    Parameters
    ----------
    student_logits, teacher_logits : (B, C, D, H, W)
    beta : sharpness β ≥ 0, see ``schedules.adaptive_beta``

    Returns
    -------
    Scalar tensor.
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
    """``uncl`` of student and teacher that are compared already."""
    distance, h_s, h_t = comparison
    # 1 / (e^a + e^b) = sigmoid(b - a) e^-b: stays finite for any β.
    weight = torch.sigmoid(beta * (h_t - h_s)) * torch.exp(-beta * h_t)
    return _mean(distance * weight + entropy_weight * beta * (h_s + h_t))


def consistency_mse(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean squared distance of the two softmax outputs (Mean Teacher, NeurIPS 2017); scalar."""
    return consistency_from_log_probabilities(
        compute_log_probabilities(student_logits), compute_log_probabilities(teacher_logits)
    )


def consistency_from_log_probabilities(student_log_p: Tensor, teacher_log_p: Tensor) -> Tensor:
    """``consistency_mse`` of ``(B, C, D, H, W)`` log-probabilities."""
    return _mean((student_log_p.exp() - teacher_log_p.detach().exp()).square())


def consistency_from_distance(distance: Tensor, classes: int) -> Tensor:
    """``consistency_mse`` of the ``distance`` of a ``Comparison``."""
    return _mean(distance) / classes


def _mean(values: Tensor) -> Tensor:
    """The mean; an exact 0 with a gradient path where there is nothing."""
    return values.sum() / max(values.numel(), 1)
