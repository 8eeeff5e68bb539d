"""Feature-level contrast: FeCL inside patches, SECL between student and teacher across a batch.

Notation: an embedding map has ``N`` cells a patch (a coarse grid over its voxels) and ``E``
channels; ``z`` are L2-normalised, ``s_ik = z_i · z_k``. Cells of class -1 take no part. What class
or group a cell has is decided in ``cells.py``.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from napari_dycon.engine.cells import IGNORED
from napari_dycon.engine.losses import at_least_float32

# Pair entries (rows x cells) held at once; beyond it losses work in row blocks with recomputation.
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
    No gradient flows through the weights F nor into the teacher. Where all cells are alike every
    ``F⁺`` is 0, and with it loss and gradient: networks that were watched went there and stayed
    (see benchmarks/RESULTS.md). With ``gamma = 0`` all weights are 1 (times ``exp(h_i)``), and they
    did not.

    Parameters
    ----------
    student_embeddings : (B, N, E), L2-normalised
    labels : (B, N), int64; -1 is ignored as anchor and as pair
    entropy : (B, N), entropy of each cell divided by log C, in [0, 1]
    teacher_embeddings : (B, N, E) or None; without it ``T(i)`` is 0
    pair_budget : entries of the similarity matrices of all patches above which row blocks are
        recomputed

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
        rows = max(1, min(cells, pair_budget // max(batch * cells, 1)))
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
    some = rest > 0  # without negatives D is the positive alone, and the term an exact 0
    log_rest = torch.where(some, torch.where(some, rest, 1.0).log(), -math.inf)[:, None]
    # -log(e^s / (e^s + rest)) = softplus(log rest - s)
    term = F.softplus(log_rest - scaled)  # (R, N)
    positive_weight = torch.where(positive, (1.0 - s_weight).pow(gamma), torch.zeros_like(s))
    per_anchor = (positive_weight * term).sum(dim=1) * anchor_weight
    count = positive.sum(dim=1)
    return (per_anchor / count.clamp(min=1)).sum(), (count > 0).sum()


def secl(
    student_embeddings: Tensor,
    teacher_embeddings: Tensor,
    groups: Tensor,
    *,
    temperature: float = 0.1,
    pair_budget: int = PAIR_BUDGET,
) -> Tensor:
    """Contrast between student and teacher encoders over a whole batch (Xiang et al., 2021).

    For a student's cell ``i``, the teacher's cells of its group in all patches are positives
    ``P(i)`` and those of other groups negatives:
    ``-log(m_i / (m_i + Σ_q exp(z_i·z^t_q / τ)))`` with ``m_i = mean_{k∈P(i)} exp(z_i·z^t_k / τ)``,
    averaged over the anchors that have a positive. Only the abstract of the paper was available:
    the mean over positives and τ = 0.1 are this program's own choices.

    Parameters
    ----------
    student_embeddings, teacher_embeddings : (B, N, E), L2-normalised; no gradient to the teacher
    groups : (B, N), int64: region or class of each cell; -1 is ignored as anchor and as pair
    pair_budget : entries of one similarity matrix above which row blocks are recomputed

    Returns
    -------
    Scalar tensor, an exact 0 with a gradient path when no anchor has a positive.
    """
    if student_embeddings.shape != teacher_embeddings.shape:
        raise ValueError(
            f"student embeddings {tuple(student_embeddings.shape)} and teacher embeddings "
            f"{tuple(teacher_embeddings.shape)} must have the same shape"
        )
    if groups.shape != student_embeddings.shape[:2]:
        raise ValueError(
            f"groups {tuple(groups.shape)} must be {tuple(student_embeddings.shape[:2])} to fit "
            f"embeddings {tuple(student_embeddings.shape)}"
        )
    with torch.autocast(student_embeddings.device.type, enabled=False):
        z = at_least_float32(student_embeddings).flatten(0, 1)  # (B N, E)
        z_t = at_least_float32(teacher_embeddings.detach()).flatten(0, 1)
        y = groups.flatten()
        total = z.sum() * 0.0
        used = y != IGNORED
        z, z_t, y = z[used], z_t[used], y[used]
        rows = max(1, min(len(y), pair_budget // max(len(y), 1)))
        for start in range(0, len(y), rows):
            block = slice(start, start + rows)
            arguments = (z[block], z_t, y[block], y, temperature)
            if rows < len(y) and torch.is_grad_enabled():
                total = total + checkpoint(_secl_rows, *arguments, use_reentrant=False)
            else:
                total = total + _secl_rows(*arguments)
        # Every cell has a positive: the teacher's cell at its own place.
        return total / max(len(y), 1)


def _secl_rows(z: Tensor, z_t: Tensor, y_rows: Tensor, y: Tensor, temperature: float) -> Tensor:
    """Sum of the loss over some anchors (R rows against M teacher cells)."""
    scaled = z @ z_t.T / temperature  # (R, M)
    same = y_rows[:, None] == y[None, :]
    positive = scaled.masked_fill(~same, -math.inf).logsumexp(dim=1) - same.sum(dim=1).log()
    has_negative = ~same.all(dim=1)
    negative = scaled.masked_fill(same, -math.inf)[has_negative].logsumexp(dim=1)
    # -log(m / (m + n)) = softplus(log n - log m); without a negative it is 0.
    return F.softplus(negative - positive[has_negative]).sum()
