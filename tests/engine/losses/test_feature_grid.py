"""Labels, pseudo-labels and entropy at feature-map locations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from napari_dycon.engine.losses.feature_grid import (
    downsample_entropy_from_log_p,
    downsample_labels,
    downsample_pseudo_labels,
)


def test_locations_take_the_majority_of_annotated_voxels() -> None:
    label = torch.zeros(1, 4, 4, 4, dtype=torch.long)
    label[:, :2] = 2
    label[:, 2:] = 255
    assert downsample_labels(label, 3, (2, 1, 1)).tolist() == [[2, -1]]
    label[:, 2, 0] = 1  # an eighth of the lower cell, as every fifth slice may be
    label[:, 2, 0, 0] = 0
    assert downsample_labels(label, 3, (2, 1, 1)).tolist() == [[2, 1]]
    label[:, 2, 0, 2:] = 255  # too few annotated voxels
    assert downsample_labels(label, 3, (2, 1, 1)).tolist() == [[2, -1]]


def test_an_uncertain_teacher_gives_no_class() -> None:
    p = torch.tensor([0.9, 0.1]).view(1, 2, 1, 1, 1).expand(1, 2, 2, 2, 2).clone()
    p[:, :, 1] = 0.5
    assert downsample_pseudo_labels(p, (2, 1, 1), 0.8).tolist() == [[0, -1]]


def test_entropy_of_locations_is_between_0_and_1() -> None:
    even = F.log_softmax(torch.zeros(1, 4, 4, 4, 4), dim=1)
    assert downsample_entropy_from_log_p(even, (2, 2, 2)).tolist() == [[pytest.approx(1.0)] * 8]
