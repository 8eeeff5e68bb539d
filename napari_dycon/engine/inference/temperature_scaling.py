"""Temperature of the networks' outputs, fitted on validation cases (Guo et al., ICML 2017).

Networks trained to be sure are surer than they are right. One number, the temperature by which all
logits are divided, mends most of it without changing what is predicted where the members agree. It
is fitted where it matters: in the band around the structures, on cases that are not learned from.
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

MAX_SAMPLED_VOXELS = 20_000  # of a case at most
TEMPERATURES = torch.from_numpy(np.geomspace(0.25, 4.0, 97))
CalibrationSample = tuple[Tensor, Tensor]


def sample_calibration_voxels(
    members: Sequence[Tensor], label: npt.NDArray[np.uint8], spacing_mm: Sequence[float]
) -> CalibrationSample | None:
    """Voxels of one case to calibrate on, or ``None`` where the band holds no annotation.

    Parameters
    ----------
    members : softmax outputs (C, D, H, W) at temperature 1
    label : (D, H, W), network outputs 0, 1, ..., 255 where nobody annotated

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
    """Temperature with the least negative log likelihood of the members' mean, 0.25 to 4."""
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
