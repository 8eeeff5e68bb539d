"""UnCL, the uncertainty-aware consistency loss of DyCON."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_dycon.engine.losses.consistency import Comparison, compare
from napari_dycon.engine.losses.probability import compute_log_probabilities, mean_or_zero


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
