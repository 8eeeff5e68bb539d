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

from napari_dycon.engine.evaluation.foreground_margin import widen
from napari_dycon.engine.inference.uncertainty import mean_of
from napari_dycon.engine.losses.segmentation import UNANNOTATED

VOXELS = 20_000  # of a case at most
TEMPERATURES = torch.from_numpy(np.geomspace(0.25, 4.0, 97))
Sample = tuple[Tensor, Tensor]


def calibration_sample(
    members: Sequence[Tensor], label: npt.NDArray[np.uint8], spacing_mm: Sequence[float]
) -> Sample | None:
    """Voxels of one case to calibrate on, or ``None`` where the band holds no annotation.

    Parameters
    ----------
    members : softmax outputs (C, D, H, W) at temperature 1
    label : (D, H, W), network outputs 0, 1, ..., 255 where nobody annotated

    Returns
    -------
    log probabilities (M, C, n) and classes (n,)
    """
    predicted = mean_of(members).argmax(dim=0).numpy()
    known = label != UNANNOTATED
    band = widen((predicted > 0) | ((label > 0) & known), spacing_mm) & known
    places = np.flatnonzero(band)
    if not len(places):
        return None
    if len(places) > VOXELS:
        places = np.random.default_rng(0).choice(places, VOXELS, replace=False)
    index = torch.from_numpy(places)
    found = torch.stack([member.flatten(1)[:, index] for member in members])
    return found.clamp(min=1e-7).log(), torch.from_numpy(label.reshape(-1)[places].astype(np.int64))


def fit_temperature(samples: Sequence[Sample]) -> float:
    """Temperature with the least negative log likelihood of the members' mean, 0.25 to 4."""
    if not samples:
        return 1.0
    losses = []
    for temperature in TEMPERATURES.tolist():
        total, count = 0.0, 0
        for log_p, classes in samples:
            mean = torch.softmax(log_p / temperature, dim=1).mean(dim=0)  # (C, n)
            picked = mean.gather(0, classes[None])[0].clamp(min=1e-12)
            total -= float(picked.log().sum())
            count += len(classes)
        losses.append(total / count)
    return round(float(TEMPERATURES[int(np.argmin(losses))]), 4)
