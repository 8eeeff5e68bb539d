"""Temperature scaling: known temperatures are recovered, and stored with the weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_dycon.engine.inference.temperature_scaling import (
    fit_temperature,
    sample_calibration_voxels,
)


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_a_known_temperature_is_found(true: float) -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 20_000, generator=g, dtype=torch.float64) * 2
    classes = torch.multinomial(torch.softmax(logits, dim=0).T, 1, generator=g)[:, 0]
    log_p = torch.log_softmax(logits * true, dim=0)[None]
    assert fit_temperature([(log_p, classes)]) == pytest.approx(true, rel=0.06)


def test_without_a_sample_nothing_changes() -> None:
    assert fit_temperature([]) == 1.0


def test_samples_are_in_the_annotated_margin() -> None:
    p = torch.zeros(2, 12, 12, 12)
    p[0] = 1.0
    p[:, 5:7, 5:7, 5:7] = torch.tensor([0.2, 0.8])[:, None, None, None]
    label = np.zeros((12, 12, 12), np.uint8)
    label[5:7, 5:7, 5:7] = 1
    label[:, :6] = 255
    log_p, classes = sample_calibration_voxels([p, p], label, (3.0, 3.0, 3.0))
    # Eight voxels and one voxel around them, the upper half of it annotated.
    assert log_p.shape == (2, 2, 4 * 4 * 2)
    assert int(classes.sum()) == 4
    assert sample_calibration_voxels([p, p], np.full_like(label, 255), (1.0, 1.0, 1.0)) is None
