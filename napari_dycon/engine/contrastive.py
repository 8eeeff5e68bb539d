"""Feature-level contrast: FeCL and the classes of the cells it compares.

Notation: an embedding map has ``N`` cells a patch (a coarse grid over its voxels) and ``E``
channels; ``z`` are L2-normalised, ``s_ik = z_i · z_k``. Cells of class -1 take no part.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from napari_dycon.engine.losses import UNANNOTATED, at_least_float32, entropy

IGNORED = -1
Grid = tuple[int, int, int]  # cells (d, h, w) of a patch
# Pair entries (rows x cells) held at once; beyond it FeCL works in row blocks with recomputation.
PAIR_BUDGET = 2**24


def fecl(
    student_embeddings: Tensor,
    labels: Tensor,
    entropy: Tensor,
    teacher_embeddings: Tensor | None = None,
    *,
    temperature: float = 0.6,
    gamma: float = 2.0,
    top_k: int = 32,
    pair_budget: int = PAIR_BUDGET,
) -> Tensor:
    """Focal entropy-aware contrastive loss (DyCON, Assefa et al., CVPR 2025, Eqs. 3-6).

    Inside one patch, for anchor ``i`` with positives ``P(i)`` (same class) and negatives ``Q(i)``:
    ``F⁺_ik = (1 - max(s_ik, 0))^γ exp(h_i)``, ``F⁻_iq = max(s_iq, 0)^γ``,
    ``T(i)`` the mean of ``exp(s^t_il / τ)`` over the ``top_k`` negatives most similar to the
    teacher's embeddings (all of them when there are fewer),
    ``D_ik = exp(s_ik/τ) + Σ_q F⁻_iq exp(s_iq/τ) + T(i)`` and
    ``FeCL = mean_i 1/|P(i)| Σ_k F⁺_ik (-log(exp(s_ik/τ) / D_ik))`` over anchors with a positive.
    No gradient flows through the weights F nor into the teacher.

    Parameters
    ----------
    student_embeddings : (B, N, E), L2-normalised
    labels : (B, N), int64; -1 is ignored as anchor and as pair
    entropy : (B, N), entropy of each cell divided by log C, in [0, 1]
    teacher_embeddings : (B, N, E) or None; without it ``T(i)`` is 0
    pair_budget : entries of one similarity matrix above which row blocks are recomputed

    Returns
    -------
    Scalar tensor, an exact 0 with a gradient path when no anchor has a positive.
    """
    batch, cells, _ = student_embeddings.shape
    if labels.shape != (batch, cells) or entropy.shape != (batch, cells):
        raise ValueError(
            f"labels {tuple(labels.shape)} and entropy {tuple(entropy.shape)} must be "
            f"({batch}, {cells}) to fit embeddings {tuple(student_embeddings.shape)}"
        )
    with torch.autocast(student_embeddings.device.type, enabled=False):
        z = at_least_float32(student_embeddings)
        z_t = None if teacher_embeddings is None else at_least_float32(teacher_embeddings.detach())
        weight = at_least_float32(entropy.detach()).to(z.dtype).exp()
        rows = max(1, min(cells, pair_budget // cells))
        total = z.sum() * 0.0
        anchors = torch.zeros((), dtype=torch.long, device=z.device)
        for b in range(batch):
            for start in range(0, cells, rows):
                block = slice(start, start + rows)
                arguments = (
                    z[b, block], z[b], labels[b, block], labels[b], weight[b, block],
                    None if z_t is None else z_t[b], start, temperature, gamma, top_k,
                )  # fmt: skip
                if rows < cells and torch.is_grad_enabled():
                    part, count = checkpoint(_fecl_rows, *arguments, use_reentrant=False)
                else:
                    part, count = _fecl_rows(*arguments)
                total = total + part
                anchors = anchors + count
        return total / anchors.clamp(min=1)


def _fecl_rows(
    z_rows: Tensor,
    z: Tensor,
    y_rows: Tensor,
    y: Tensor,
    anchor_weight: Tensor,
    z_teacher: Tensor | None,
    start: int,
    temperature: float,
    gamma: float,
    top_k: int,
) -> tuple[Tensor, Tensor]:
    """Sum of the loss over some anchors (R rows of N cells), and how many anchors were valid."""
    valid = y != IGNORED
    same = y_rows[:, None] == y[None, :]  # (R, N)
    anchor_valid = y_rows != IGNORED
    usable = anchor_valid[:, None] & valid[None, :]
    others = torch.ones_like(same)
    index = torch.arange(len(y_rows), device=z.device)
    others[index, index + start] = False
    positive = same & usable & others
    negative = ~same & usable

    # exp((s - 1)/τ) instead of exp(s/τ): the common factor e^(1/τ) cancels in the ratio, and
    # small temperatures cannot overflow.
    s = z_rows @ z.T  # (R, N)
    s_weight = s.detach().clamp(0.0, 1.0)
    scaled = (s - 1.0) / temperature
    negative_weight = torch.where(negative, s_weight.pow(gamma), torch.zeros_like(s))
    rest = (negative_weight * scaled.exp()).sum(dim=1)  # (R,)
    if z_teacher is not None:
        s_t = (z_rows @ z_teacher.T).masked_fill(~negative, -math.inf)
        top = s_t.topk(min(top_k, s_t.shape[1]), dim=1).values  # (R, K)
        used = top > -math.inf
        hardest = torch.where(used, (torch.where(used, top, 0.0) - 1.0) / temperature, 0.0).exp()
        rest = rest + (hardest * used).sum(dim=1) / used.sum(dim=1).clamp(min=1)
    floor = torch.finfo(s.dtype).tiny
    log_rest = rest.clamp(min=floor).log()[:, None]
    # -log(e^s / (e^s + rest)) = softplus(log rest - s)
    term = F.softplus(log_rest - scaled)  # (R, N)
    positive_weight = torch.where(positive, (1.0 - s_weight).pow(gamma), torch.zeros_like(s))
    per_anchor = (positive_weight * term).sum(dim=1) * anchor_weight
    count = positive.sum(dim=1)
    return (per_anchor / count.clamp(min=1)).sum(), (count > 0).sum()


def label_cells(label: Tensor, classes: int, grid: Grid) -> Tensor:
    """Majority class of each cell: ``(B, D, H, W)`` int64 labels to ``(B, N)``.

    Only annotated voxels vote; a cell that is annotated to less than a half is -1.
    """
    annotated = label != UNANNOTATED
    target = torch.where(annotated, label, torch.zeros_like(label))
    one_hot = F.one_hot(target, classes).movedim(-1, 1).float() * annotated[:, None]
    votes = F.adaptive_avg_pool3d(one_hot, grid)  # (B, C, d, h, w)
    cells = votes.argmax(dim=1)
    cells = torch.where(votes.sum(dim=1) >= 0.5, cells, torch.full_like(cells, IGNORED))
    return cells.flatten(1)


def pseudo_label_cells(teacher_probabilities: Tensor, grid: Grid, confidence: float) -> Tensor:
    """Majority class of the teacher's prediction in each cell, ``(B, C, D, H, W)`` to ``(B, N)``.

    A cell in which the teacher's mean confidence (its largest probability) is under ``confidence``
    is -1.
    """
    sure, winner = teacher_probabilities.max(dim=1)
    votes = F.one_hot(winner, teacher_probabilities.shape[1]).movedim(-1, 1).float()
    cells = F.adaptive_avg_pool3d(votes, grid).argmax(dim=1)
    mean_confidence = F.adaptive_avg_pool3d(sure[:, None].float(), grid).squeeze(1)
    cells = torch.where(mean_confidence >= confidence, cells, torch.full_like(cells, IGNORED))
    return cells.flatten(1)


def entropy_cells(log_probabilities: Tensor, grid: Grid) -> Tensor:
    """Mean entropy of each cell divided by log C: ``(B, C, D, H, W)`` to ``(B, N)`` in [0, 1]."""
    h = entropy(log_probabilities) / math.log(log_probabilities.shape[1])
    return F.adaptive_avg_pool3d(h[:, None].float(), grid).squeeze(1).flatten(1).clamp(0.0, 1.0)
