"""Temperature scaling, fitted on validation cases (Guo et al., ICML 2017).

Networks are usually overconfident. Dividing all logits by one number, the temperature, corrects
most of this without changing the prediction where the members agree. It is fitted on voxels in the
foreground margin of cases that are not used for training.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_dycon.core.types import UNANNOTATED
from napari_dycon.engine.evaluation.foreground_margin import dilate_mm
from napari_dycon.engine.inference.uncertainty import ensemble_mean

MAX_SAMPLED_VOXELS = 20_000  # per case
TEMPERATURES = torch.from_numpy(np.geomspace(0.25, 4.0, 97))
CalibrationSample = tuple[Tensor, Tensor]


def sample_calibration_voxels(
    members: Sequence[Tensor], label: npt.NDArray[np.uint8], spacing_mm: Sequence[float]
) -> CalibrationSample | None:
    """Sample voxels of a case for calibration; ``None`` if the margin has no annotated voxel.

    Parameters
    ----------
    members : softmax outputs (C, D, H, W) at temperature 1
    label : (D, H, W), class indices 0, 1, ...; 255 in unannotated voxels

    Returns
    -------
    log probabilities (M, C, n) and classes (n,)
    """
    predicted = ensemble_mean(members).argmax(dim=0).numpy()
    is_annotated = label != UNANNOTATED
    margin = dilate_mm((predicted > 0) | ((label > 0) & is_annotated), spacing_mm) & is_annotated
    indices = np.flatnonzero(margin)
    if not len(indices):
        return None
    if len(indices) > MAX_SAMPLED_VOXELS:
        indices = np.random.default_rng(0).choice(indices, MAX_SAMPLED_VOXELS, replace=False)
    index = torch.from_numpy(indices)
    probabilities = torch.stack([member.flatten(1)[:, index] for member in members])
    return probabilities.clamp(min=1e-7).log(), torch.from_numpy(
        label.reshape(-1)[indices].astype(np.int64)
    )


def fit_temperature(samples: Sequence[CalibrationSample]) -> float:
    """Find the temperature, 0.25 to 4, that minimizes the ensemble's negative log-likelihood."""
    if not samples:
        return 1.0
    losses = []
    for temperature in TEMPERATURES.tolist():
        total, count = 0.0, 0
        for log_p, classes in samples:
            mean = torch.softmax(log_p / temperature, dim=1).mean(dim=0)  # (C, n)
            likelihoods = mean.gather(0, classes[None])[0].clamp(min=1e-12)
            total -= float(likelihoods.log().sum())
            count += len(classes)
        losses.append(total / count)
    return round(float(TEMPERATURES[int(np.argmin(losses))]), 4)
