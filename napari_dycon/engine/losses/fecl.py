"""FeCL: focal entropy-aware contrast between the feature-map locations of a patch.

Notation: an embedding map has ``N`` feature-map locations (a coarse grid over the patch) and ``E``
channels; ``z`` are L2-normalized, ``s_ik = z_i · z_k``. Locations of class -1 are ignored. The
class of a location is determined in ``feature_grid.py``.

All patches are computed at once, with masks instead of selections: no control flow depends on the
values of a tensor, so that the host never waits for a GPU and the loss can be compiled as a whole.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from napari_dycon.engine.losses.feature_grid import IGNORE_INDEX, PAIR_BUDGET
from napari_dycon.engine.losses.probability import masked_log_sum_exp, upcast

MIN_DISTANCE = 1e-4  # 1 - s of a student's and a teacher's location, before its logarithm


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
    """Compute the focal entropy-aware contrastive loss (Assefa et al., CVPR 2025, Eqs. 3-6).

    Inside one patch, for anchor ``i`` with positives ``P(i)`` (same class) and negatives ``Q(i)``
    (another class), with ``e_ik = exp(s_ik / τ)``:
    ``F⁻_iq = e_iq^γ⁻ / mean_{q'∈Q(i)} e_iq'^γ⁻`` weights hard negatives more, 1 on the mean;
    ``S_ik = e_ik / (e_ik + Σ_{q∈Q(i)} F⁻_iq e_iq)`` is the pair's probability;
    ``F⁺_ik = (1 - S_ik)^γ exp(h_i)`` weights pairs that are not yet likely, of uncertain anchors;
    ``FeCL = mean_i 1/|P(i)| Σ_k F⁺_ik (-log S_ik) + λ X`` over all anchors with a positive;
    ``X = mean of -log(max(1 - s^t_il, 1e-4))`` over the pairs of a student's location ``i`` and a
    teacher's location ``l`` of another class with ``s^t_il = z_i · z^teacher_l > θ``.
    Gradient flows through ``S``, not through ``h``, ``F⁻`` or the teacher.

    Parameters
    ----------
    student_embeddings : (B, N, E), L2-normalized
    labels : (B, N), int64; -1 is ignored as anchor and as pair
    entropy : (B, N), entropy of each location divided by log C, in [0, 1]
    teacher_embeddings : (B, N, E) or None; without it there is no ``X``
    negative_gamma : γ⁻, 0 weights all negatives equally (as the released code)
    teacher_weight : λ, 1 in the released code; 0 disables ``X``
    threshold : θ, see ``schedules.teacher_threshold``
    pair_budget : entries of the similarity matrices of all patches above which row blocks are
        recomputed

    Returns
    -------
    scalar tensor, an exact 0 with a gradient path if there is no pair
    """
    _check_shapes(student_embeddings, labels, entropy, teacher_embeddings)
    with torch.autocast(student_embeddings.device.type, enabled=False):
        z = upcast(student_embeddings)
        if z.numel() == 0:
            return z.sum()
        z_t = None
        if teacher_embeddings is not None and teacher_weight != 0:
            z_t = upcast(teacher_embeddings.detach()).to(z.dtype)
        anchor_weight = entropy.detach().to(z.dtype).exp()
        batch, n_locations, _ = z.shape
        rows = max(1, min(n_locations, pair_budget // (batch * n_locations)))
        zero, zero_count = z.new_zeros(()), torch.zeros((), dtype=torch.long, device=z.device)
        contrast, anchors, repulsion, pairs = zero, zero_count, zero, zero_count
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


def _check_shapes(
    student_embeddings: Tensor, labels: Tensor, entropy: Tensor, teacher_embeddings: Tensor | None
) -> None:
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
    """Sum both terms over R anchors of every patch, each with its count of terms."""
    # Pairs to leave out as negatives and as positives; anchors of class -1 are ignored.
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
            focus - (masked_log_sum_exp(focus, no_negative) - n_negatives.to(s.dtype).log())
        )
    # x is the negative log-odds of S: -log S = softplus(x), log(1 - S) = x - softplus(x).
    x = masked_log_sum_exp(to_negatives, no_negative) - s  # (B, R, N)
    term = F.softplus(x)
    if gamma != 0:
        term = term * (gamma * (x - term)).exp()
    n_positives = (same_class.sum(dim=2) - 1).masked_fill(ignored, 0)  # (B, R), |P(i)|
    per_anchor = (
        term.masked_fill(no_positive, 0.0).sum(dim=2) * anchor_weight / n_positives.clamp(min=1)
    )
    has_no_negative = no_negative.all(dim=2)  # without negatives S is 1
    contrast = per_anchor.masked_fill(ignored | has_no_negative, 0.0).sum()
    anchors = (n_positives > 0).sum()
    if z_teacher is None:
        return contrast, anchors, torch.zeros_like(contrast), torch.zeros_like(anchors)

    s_t = z_rows @ z_teacher.transpose(1, 2)  # (B, R, N)
    no_pair = no_negative | ignored[:, :, None] | (s_t.detach() <= threshold)
    repulsion = -(1.0 - s_t).clamp(min=MIN_DISTANCE).log()
    return contrast, anchors, repulsion.masked_fill(no_pair, 0.0).sum(), (~no_pair).sum()
