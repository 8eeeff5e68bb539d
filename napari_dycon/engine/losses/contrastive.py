"""Feature-level contrast: FeCL inside patches, SECL between student and teacher across a batch.

Notation: an embedding map has ``N`` cells a patch (a coarse grid over its voxels) and ``E``
channels; ``z`` are L2-normalized, ``s_ik = z_i · z_k``. Cells of class -1 take no part. What class
or group a cell has is decided in ``cells.py``.

All patches are computed at once, with masks instead of selections: nothing here depends on the
values of a tensor, so that no step waits for a GPU and a compiler can take the whole of it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from napari_dycon.engine.losses.feature_grid import IGNORE_INDEX
from napari_dycon.engine.losses.segmentation import upcast

# Pair entries (rows x cells) held at once; beyond it losses work in row blocks with recomputation.
PAIR_BUDGET = 2**24
MIN_DISTANCE = 1e-4  # 1 - s of a student's and a teacher's cell, before its logarithm


def fecl(
    student_embeddings: Tensor,
    labels: Tensor,
    entropy: Tensor,
    teacher_embeddings: Tensor | None = None,
    *,
    temperature: float = 0.6,
    gamma: float = 2.0,
    negative_gamma: float = 0.0,
    teacher_weight: float = 0.0,
    threshold: float = 0.5,
    pair_budget: int = PAIR_BUDGET,
) -> Tensor:
    """Focal entropy-aware contrastive loss (DyCON, Assefa et al., CVPR 2025, Eqs. 3-6).

    Inside one patch, for anchor ``i`` with positives ``P(i)`` (same class) and negatives ``Q(i)``
    (another class), with ``e_ik = exp(s_ik / τ)``:
    ``F⁻_iq = e_iq^γ⁻ / mean_{q'∈Q(i)} e_iq'^γ⁻`` weights hard negatives more, 1 on the mean;
    ``S_ik = e_ik / (e_ik + Σ_{q∈Q(i)} F⁻_iq e_iq)`` is the pair's probability;
    ``F⁺_ik = (1 - S_ik)^γ exp(h_i)`` weights pairs that are not yet likely, of uncertain anchors;
    ``FeCL = mean_i 1/|P(i)| Σ_k F⁺_ik (-log S_ik) + λ X`` over all anchors with a positive;
    ``X = mean of -log(max(1 - s^t_il, 1e-4))`` over the pairs of a student's cell ``i`` and a
    teacher's cell ``l`` of another class with ``s^t_il = z_i · z^teacher_l > θ``.
    Gradient flows through ``S``, not through ``h``, ``F⁻`` or the teacher.

    Parameters
    ----------
    student_embeddings : (B, N, E), L2-normalized
    labels : (B, N), int64; -1 is ignored as anchor and as pair
    entropy : (B, N), entropy of each cell divided by log C, in [0, 1]
    teacher_embeddings : (B, N, E) or None; without it there is no ``X``
    negative_gamma : γ⁻, 0 weighs all negatives alike (the released code)
    teacher_weight : λ, 1 in the released code; 0 leaves ``X`` out
    threshold : θ, see ``schedules.teacher_threshold``
    pair_budget : entries of the similarity matrices of all patches above which row blocks are
        recomputed

    Returns
    -------
    Scalar tensor, an exact 0 with a gradient path when there is no pair.
    """
    batch, n_locations, _ = student_embeddings.shape
    if labels.shape != (batch, n_locations) or entropy.shape != (batch, n_locations):
        raise ValueError(
            f"labels {tuple(labels.shape)} and entropy {tuple(entropy.shape)} must be "
            f"({batch}, {n_locations}) to fit embeddings {tuple(student_embeddings.shape)}"
        )
    if teacher_embeddings is not None and teacher_embeddings.shape != student_embeddings.shape:
        raise ValueError(
            f"student embeddings {tuple(student_embeddings.shape)} and teacher embeddings "
            f"{tuple(teacher_embeddings.shape)} must have the same shape"
        )
    with torch.autocast(student_embeddings.device.type, enabled=False):
        z = upcast(student_embeddings)
        if z.numel() == 0:
            return z.sum()
        z_t = None
        if teacher_embeddings is not None and teacher_weight != 0:
            z_t = upcast(teacher_embeddings.detach()).to(z.dtype)
        anchor_weight = entropy.detach().to(z.dtype).exp()
        rows = max(1, min(n_locations, pair_budget // (batch * n_locations)))
        zero_count = torch.zeros((), dtype=torch.long, device=z.device)
        contrast, anchors, repulsion, pairs = (
            z.new_zeros(()),
            zero_count,
            z.new_zeros(()),
            zero_count,
        )
        for start in range(0, n_locations, rows):
            block = slice(start, start + rows)
            arguments = (
                z[:, block], z, labels[:, block], labels, anchor_weight[:, block], z_t, start,
                temperature, gamma, negative_gamma, threshold,
            )  # fmt: skip
            if rows < n_locations and torch.is_grad_enabled():
                sums = checkpoint(
                    _fecl_chunk, *arguments, use_reentrant=False, preserve_rng_state=False
                )
            else:
                sums = _fecl_chunk(*arguments)
            contrast, anchors = contrast + sums[0], anchors + sums[1]
            repulsion, pairs = repulsion + sums[2], pairs + sums[3]
        loss = contrast / anchors.clamp(min=1)
        if z_t is not None:
            loss = loss + teacher_weight * (repulsion / pairs.clamp(min=1))
        return loss


def _fecl_chunk(
    z_rows: Tensor,
    z: Tensor,
    y_rows: Tensor,
    y: Tensor,
    anchor_weight: Tensor,
    z_teacher: Tensor | None,
    start: int,
    temperature: float,
    gamma: float,
    negative_gamma: float,
    threshold: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Some anchors of every patch (R rows of N cells): sums of both terms, each with its count."""
    # What is no negative or no positive of an anchor; those of class -1 are left out as anchors.
    same_class = y_rows[:, :, None] == y[:, None, :]  # (B, R, N)
    index = torch.arange(y.shape[1], device=y.device)
    is_self = index[start : start + y_rows.shape[1], None] == index  # (R, N)
    no_negative, no_positive = same_class | (y == IGNORE_INDEX)[:, None, :], ~same_class | is_self
    ignored = y_rows == IGNORE_INDEX  # (B, R)

    s = (z_rows / temperature) @ z.transpose(1, 2)  # (B, R, N), s_ik / τ
    to_negatives = s
    if negative_gamma != 0:
        focus = negative_gamma * s.detach()
        n_negatives = (~no_negative).sum(dim=2, keepdim=True).clamp(min=1)
        to_negatives = s + (
            focus - (_log_sum_exp(focus, no_negative) - n_negatives.to(s.dtype).log())
        )
    # x is the negative log-odds of S: -log S = softplus(x), log(1 - S) = x - softplus(x).
    x = _log_sum_exp(to_negatives, no_negative) - s  # (B, R, N)
    term = F.softplus(x)
    if gamma != 0:
        term = term * (gamma * (x - term)).exp()
    n_positives = (same_class.sum(dim=2) - 1).masked_fill(ignored, 0)  # (B, R), |P(i)|
    per_anchor = (
        term.masked_fill(no_positive, 0.0).sum(dim=2) * anchor_weight / n_positives.clamp(min=1)
    )
    has_no_negative = no_negative.all(dim=2)  # nothing to be told apart from: S is 1
    contrast = per_anchor.masked_fill(ignored | has_no_negative, 0.0).sum()
    anchors = (n_positives > 0).sum()
    if z_teacher is None:
        return contrast, anchors, torch.zeros_like(contrast), torch.zeros_like(anchors)

    s_t = z_rows @ z_teacher.transpose(1, 2)  # (B, R, N)
    no_pair = no_negative | ignored[:, :, None] | (s_t.detach() <= threshold)
    repulsion = -(1.0 - s_t).clamp(min=MIN_DISTANCE).log()
    return contrast, anchors, repulsion.masked_fill(no_pair, 0.0).sum(), (~no_pair).sum()


def _log_sum_exp(x: Tensor, is_masked: Tensor) -> Tensor:
    """log Σ exp(x) over the last dimension of what is not absent, ``(..., 1)``; 0 where all is.

    The obvious ``x.masked_fill(absent, -inf).logsumexp()`` has no gradient where all is absent, and
    the exponential of something so low takes a CPU ten times as long as any other.
    """
    highest = x.detach().masked_fill(is_masked, -math.inf).amax(dim=-1, keepdim=True)
    highest = highest.masked_fill(highest == -math.inf, 0.0)
    terms = (x - highest).masked_fill(is_masked, 0.0).exp().masked_fill(is_masked, 0.0)
    # The highest term is an exact 1, so that the bound is for sums of nothing alone.
    return highest + terms.sum(dim=-1, keepdim=True).clamp(min=1.0).log()


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
    student_embeddings, teacher_embeddings : (B, N, E), L2-normalized; no gradient to the teacher
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
        z = upcast(student_embeddings).flatten(0, 1)  # (M, E), M = B N
        z_t = upcast(teacher_embeddings.detach()).to(z.dtype).flatten(0, 1)
        if z.numel() == 0:
            return z.sum()
        y = groups.flatten()
        n_locations = len(y)
        rows = max(1, min(n_locations, pair_budget // n_locations))
        total = z.new_zeros(())
        for start in range(0, n_locations, rows):
            block = slice(start, start + rows)
            arguments = (z[block], z_t, y[block], y, temperature)
            if rows < n_locations and torch.is_grad_enabled():
                total = total + checkpoint(
                    _secl_chunk, *arguments, use_reentrant=False, preserve_rng_state=False
                )
            else:
                total = total + _secl_chunk(*arguments)
        # Every cell of a group has a positive: the teacher's cell at its own place.
        return total / (y != IGNORE_INDEX).sum().clamp(min=1)


def _secl_chunk(z: Tensor, z_t: Tensor, y_rows: Tensor, y: Tensor, temperature: float) -> Tensor:
    """Sum of the loss over some anchors (R rows against M teacher cells)."""
    scaled = (z / temperature) @ z_t.T  # (R, M)
    same = y_rows[:, None] == y[None, :]
    no_negative = same | (y == IGNORE_INDEX)
    n_positives = same.sum(dim=1, keepdim=True).to(scaled.dtype)
    log_mean = _log_sum_exp(scaled, ~same) - n_positives.log()
    # -log(m / (m + n)) = softplus(log n - log m)
    term = F.softplus(_log_sum_exp(scaled, no_negative) - log_mean).squeeze(1)
    return term.masked_fill((y_rows == IGNORE_INDEX) | no_negative.all(dim=1), 0.0).sum()
