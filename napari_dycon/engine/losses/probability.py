"""Functions shared by several losses: log-probabilities, entropy, masked log-sum-exp.

Everything is computed in at least float32, also under autocast. Entropies are in nats;
``engine/inference/uncertainty.py`` implements a normalized entropy because it is copied into MONAI
bundles and must not import this package.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def upcast(x: Tensor) -> Tensor:
    """Convert half-precision tensors to float32; others are returned unchanged."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def compute_log_probabilities(logits: Tensor) -> Tensor:
    """Compute log p of ``(B, C, ...)`` logits, in at least float32."""
    with torch.autocast(logits.device.type, enabled=False):
        return F.log_softmax(upcast(logits), dim=1)


def predictive_entropy(log_probabilities: Tensor) -> Tensor:
    """Compute H(p) = -Σ_c p_c log p_c in nats: ``(B, C, ...)`` to ``(B, ...)``."""
    return entropy_from_probabilities(log_probabilities.exp(), log_probabilities)


def entropy_from_probabilities(p: Tensor, log_p: Tensor) -> Tensor:
    """Compute ``predictive_entropy`` from existing probabilities."""
    return -(p * log_p).sum(dim=1)


def masked_log_sum_exp(x: Tensor, is_masked: Tensor) -> Tensor:
    """Compute log Σ exp(x) over unmasked entries of the last dimension; 0 without any.

    The shape is ``(..., 1)``. The direct ``x.masked_fill(is_masked, -inf).logsumexp()`` has no
    gradient where everything is masked, and the exponential of -inf takes ten times as long on a
    CPU.
    """
    highest = x.detach().masked_fill(is_masked, -math.inf).amax(dim=-1, keepdim=True)
    highest = highest.masked_fill(highest == -math.inf, 0.0)
    terms = (x - highest).masked_fill(is_masked, 0.0).exp().masked_fill(is_masked, 0.0)
    # The largest term is exactly 1, so that the bound only affects empty sums.
    return highest + terms.sum(dim=-1, keepdim=True).clamp(min=1.0).log()


def mean_or_zero(values: Tensor) -> Tensor:
    """Return the mean; an exact 0 with a gradient path if ``values`` is empty."""
    return values.sum() / max(values.numel(), 1)
