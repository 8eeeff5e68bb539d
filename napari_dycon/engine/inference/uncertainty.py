"""Voxel-wise uncertainty of an ensemble of softmax outputs.

Both maps are in [0, 1], since entropies are divided by log C.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def normalized_entropy(probabilities: Tensor) -> Tensor:
    """Compute H(p) / log C over dimension 0: ``(C, D, H, W)`` to ``(D, H, W)``."""
    safe = probabilities.clamp(min=1e-12)
    return -(probabilities * safe.log()).sum(dim=0) / math.log(len(probabilities))


def ensemble_mean(members: Sequence[Tensor]) -> Tensor:
    """Compute the mean of softmax outputs with memory for one extra array."""
    total = members[0].clone()
    for member in members[1:]:
        total += member
    return total / len(members)


def compute_uncertainty_maps(
    members: Iterable[Tensor], atlas_probabilities: Tensor | None = None, atlas_weight: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the mean prediction, its normalized entropy, and the members' disagreement.

    Disagreement is the mutual information: entropy of the mean minus mean of the entropies.

    Parameters
    ----------
    members : softmax outputs ``(C, D, H, W)``; only one at a time is held
    atlas_probabilities : probabilities of the atlases, on any device, or ``None``
    atlas_weight : their weight in the mean, 0 to 1; the members share the rest equally

    Returns
    -------
    mean ``(C, D, H, W)``, uncertainty ``(D, H, W)``, disagreement ``(D, H, W)``
    """
    iterator = iter(members)
    total = next(iterator).clone()
    mean_entropy = normalized_entropy(total)
    count = 1
    for member in iterator:
        total += member
        mean_entropy += normalized_entropy(member)
        count += 1
    mean, mean_entropy = total / count, mean_entropy / count
    if atlas_probabilities is not None:
        atlas_probabilities = atlas_probabilities.to(mean.device)
        mean = torch.lerp(mean, atlas_probabilities, atlas_weight)
        mean_entropy = torch.lerp(
            mean_entropy, normalized_entropy(atlas_probabilities), atlas_weight
        )
    uncertainty = normalized_entropy(mean).clamp(0.0, 1.0)
    disagreement = (uncertainty - mean_entropy).clamp(0.0, 1.0)
    return mean, uncertainty, disagreement
