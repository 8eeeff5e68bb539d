"""Mathematics that several losses share: log-probabilities, entropy, masked log-sum-exp.

Everything is computed in at least float32, also under autocast. Entropies are in nats;
``engine/inference/uncertainty.py`` has its own, normalized one because it is copied into MONAI
bundles and imports nothing of this package.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def upcast(x: Tensor) -> Tensor:
    """Half-precision tensors in float32, others as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def compute_log_probabilities(logits: Tensor) -> Tensor:
    """log p of ``(B, C, ...)`` logits, in at least float32."""
    with torch.autocast(logits.device.type, enabled=False):
        return F.log_softmax(upcast(logits), dim=1)


def predictive_entropy(log_probabilities: Tensor) -> Tensor:
    """H(p) = -Σ_c p_c log p_c in nats over dimension 1: ``(B, C, ...)`` to ``(B, ...)``."""
    return entropy_from_probabilities(log_probabilities.exp(), log_probabilities)


def entropy_from_probabilities(p: Tensor, log_p: Tensor) -> Tensor:
    """``predictive_entropy`` where the probabilities exist already."""
    return -(p * log_p).sum(dim=1)


def masked_log_sum_exp(x: Tensor, is_masked: Tensor) -> Tensor:
    """log Σ exp(x) over the unmasked entries of the last dimension, ``(..., 1)``; 0 without any.

    The direct ``x.masked_fill(is_masked, -inf).logsumexp()`` has no gradient where everything is
    masked, and the exponential of such a low number takes ten times as long on a CPU.
    """
    highest = x.detach().masked_fill(is_masked, -math.inf).amax(dim=-1, keepdim=True)
    highest = highest.masked_fill(highest == -math.inf, 0.0)
    terms = (x - highest).masked_fill(is_masked, 0.0).exp().masked_fill(is_masked, 0.0)
    # The highest term is an exact 1, so that the bound only affects empty sums.
    return highest + terms.sum(dim=-1, keepdim=True).clamp(min=1.0).log()


def mean_or_zero(values: Tensor) -> Tensor:
    """Return the mean; an exact 0 with a gradient path where ``values`` is empty."""
    return values.sum() / max(values.numel(), 1)
