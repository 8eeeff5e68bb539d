"""SECL: contrast between student and teacher encoders across a batch.

Notation: an embedding map has ``N`` feature-map locations (a coarse grid over the patch) and ``E``
channels, L2-normalized. Locations of group -1 are ignored. The group of a location is determined in
``feature_grid.py``. Masks are used instead of selections, as in ``fecl.py``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from napari_dycon.engine.losses.feature_grid import IGNORE_INDEX, PAIR_BUDGET
from napari_dycon.engine.losses.probability import masked_log_sum_exp, upcast


def secl(
    student_embeddings: Tensor,
    teacher_embeddings: Tensor,
    groups: Tensor,
    *,
    temperature: float = 0.1,
    pair_budget: int = PAIR_BUDGET,
) -> Tensor:
    """Compute the contrastive loss between student and teacher encoders (Xiang et al., 2021).

    For a student's location ``i``, the teacher's locations of its group in all patches are
    positives ``P(i)`` and those of other groups negatives:
    ``-log(m_i / (m_i + Σ_q exp(z_i·z^t_q / τ)))`` with ``m_i = mean_{k∈P(i)} exp(z_i·z^t_k / τ)``,
    averaged over the anchors that have a positive. Only the abstract of the paper was available:
    the mean over positives and τ = 0.1 are choices of this implementation.

    Parameters
    ----------
    student_embeddings, teacher_embeddings : (B, N, E), L2-normalized; no gradient to the teacher
    groups : (B, N), int64: region or class of each location; -1 is ignored as anchor and as pair
    pair_budget : entries of one similarity matrix above which row blocks are recomputed

    Returns
    -------
    scalar tensor, an exact 0 with a gradient path if no anchor has a positive
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
        # Every location of a group has a positive: the teacher's embedding at the same location.
        return total / (y != IGNORE_INDEX).sum().clamp(min=1)


def _secl_chunk(z: Tensor, z_t: Tensor, y_rows: Tensor, y: Tensor, temperature: float) -> Tensor:
    """Sum of the loss over some anchors (R rows against M teacher locations)."""
    scaled = (z / temperature) @ z_t.T  # (R, M)
    same = y_rows[:, None] == y[None, :]
    no_negative = same | (y == IGNORE_INDEX)
    n_positives = same.sum(dim=1, keepdim=True).to(scaled.dtype)
    log_mean = masked_log_sum_exp(scaled, ~same) - n_positives.log()
    # -log(m / (m + n)) = softplus(log n - log m)
    term = F.softplus(masked_log_sum_exp(scaled, no_negative) - log_mean).squeeze(1)
    return term.masked_fill((y_rows == IGNORE_INDEX) | no_negative.all(dim=1), 0.0).sum()
