"""The supervised loss: cross-entropy and Dice over annotated voxels.

Notation: ``B`` patches, ``C`` classes (0 is background), patch voxels ``(D, H, W)``; logits are
``(B, C, D, H, W)``, labels ``(B, D, H, W)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from napari_dycon.core.types import UNANNOTATED
from napari_dycon.engine.losses.probability import compute_log_probabilities


def supervised_loss(logits: Tensor, label: Tensor, *, smooth: float = 1e-5) -> Tensor:
    """Compute cross-entropy plus soft Dice over annotated voxels, with equal weights.

    Voxels with label 255 are ignored, which makes sparse annotation possible. Dice is computed over
    the whole batch and averaged over the foreground classes that occur in it, so that absent
    classes do not contribute.

    Parameters
    ----------
    logits : (B, C, D, H, W)
    label : (B, D, H, W), int64, 255 where a voxel is unannotated
    """
    return supervised_from_log_probabilities(
        compute_log_probabilities(logits), label, smooth=smooth
    )


def supervised_from_log_probabilities(
    log_p: Tensor, label: Tensor, *, smooth: float = 1e-5
) -> Tensor:
    """Compute ``supervised_loss`` from ``(B, C, D, H, W)`` log-probabilities."""
    is_unannotated = label == UNANNOTATED
    target = label.masked_fill(is_unannotated, 0)
    target_log_p = log_p.gather(1, target[:, None]).squeeze(1)  # (B, D, H, W), of the true class
    n_annotated = (~is_unannotated).sum().clamp(min=1)
    cross_entropy = -target_log_p.masked_fill(is_unannotated, 0.0).sum() / n_annotated

    p = log_p.exp().masked_fill(is_unannotated[:, None], 0.0)
    predicted = p.sum((0, *range(2, p.ndim)))[1:]  # (C - 1,)
    # One class at a time, since a one-hot label would be as large as the logits.
    target_p = target_log_p.exp()
    other_class = [label != c for c in range(1, log_p.shape[1])]
    overlap = torch.stack([target_p.masked_fill(other, 0.0).sum() for other in other_class])
    class_sizes = torch.stack([(~other).sum() for other in other_class])  # voxels
    dice = 1.0 - (2.0 * overlap + smooth) / (predicted + class_sizes + smooth)
    is_present = class_sizes > 0
    return cross_entropy + (dice * is_present).sum() / is_present.sum().clamp(min=1)
