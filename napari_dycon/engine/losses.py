"""Voxel losses: supervised CE + Dice with unannotated voxels, UnCL, and the consistency MSE.

Notation: ``B`` patches, ``C`` classes (0 is background), patch voxels ``(D, H, W)``; logits are
``(B, C, D, H, W)``, labels ``(B, D, H, W)``. Entropies are in nats. Everything is computed in at
least float32, also under autocast.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

UNANNOTATED = 255


def at_least_float32(x: Tensor) -> Tensor:
    """Half-precision tensors in float32, others as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def entropy(log_probabilities: Tensor) -> Tensor:
    """H(p) = -Σ_c p_c log p_c in nats over dimension 1: ``(B, C, ...)`` to ``(B, ...)``."""
    return -(log_probabilities.exp() * log_probabilities).sum(dim=1)


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
    logits = at_least_float32(logits)
    with torch.autocast(logits.device.type, enabled=False):
        annotated = label != UNANNOTATED
        count = annotated.sum().clamp(min=1)
        log_p = F.log_softmax(logits, dim=1)
        target = torch.where(annotated, label, torch.zeros_like(label))
        picked = log_p.gather(1, target[:, None]).squeeze(1)
        cross_entropy = -(picked * annotated).sum() / count

        p = log_p.exp() * annotated[:, None]
        one_hot = torch.zeros_like(p).scatter_(1, target[:, None], 1.0) * annotated[:, None]
        axes = (0, *range(2, p.ndim))
        overlap = (p * one_hot).sum(axes)[1:]
        total = (p.sum(axes) + one_hot.sum(axes))[1:]
        present = one_hot.sum(axes)[1:] > 0
        dice = 1.0 - (2.0 * overlap + smooth) / (total + smooth)
        dice_loss = (dice * present).sum() / present.sum().clamp(min=1)
        return cross_entropy + dice_loss


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
    with torch.autocast(student_logits.device.type, enabled=False):
        log_s = F.log_softmax(at_least_float32(student_logits), dim=1)
        log_t = F.log_softmax(at_least_float32(teacher_logits.detach()), dim=1)
        h_s, h_t = entropy(log_s), entropy(log_t)  # (B, D, H, W)
        distance = (log_s.exp() - log_t.exp()).square().sum(dim=1)  # (B, D, H, W)
        # 1 / (e^a + e^b) = sigmoid(b - a) e^-b: stays finite for any β.
        weight = torch.sigmoid(beta * (h_t - h_s)) * torch.exp(-beta * h_t)
        return _mean(distance * weight + entropy_weight * beta * (h_s + h_t))


def consistency_mse(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean squared distance of the two softmax outputs (Mean Teacher, NeurIPS 2017); scalar."""
    with torch.autocast(student_logits.device.type, enabled=False):
        p_s = F.softmax(at_least_float32(student_logits), dim=1)
        p_t = F.softmax(at_least_float32(teacher_logits.detach()), dim=1)
        return _mean((p_s - p_t).square())


def _mean(values: Tensor) -> Tensor:
    """The mean; an exact 0 with a gradient path where there is nothing."""
    return values.sum() / max(values.numel(), 1)
