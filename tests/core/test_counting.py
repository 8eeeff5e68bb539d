"""Counts in small parts are those of the whole."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dycon.core.counting import PART_VOXELS, count_values
from napari_dycon.engine.evaluation.label_comparison import count_pairs


@pytest.mark.parametrize("size", [0, 1, PART_VOXELS, PART_VOXELS + 1, 3 * PART_VOXELS - 5])
def test_parts_add_up(size: int) -> None:
    values = np.random.default_rng(size).integers(0, 256, size).astype(np.uint8)
    assert np.array_equal(count_values(values, 256), np.bincount(values, minlength=256))


def test_pairs_of_views_are_counted() -> None:
    rng = np.random.default_rng(0)
    label = rng.choice([0, 1, 2, 255], (40, 30, 20)).astype(np.uint8).transpose(2, 0, 1)[::-1]
    prediction = rng.integers(0, 3, label.shape).astype(np.uint8)
    pairs = count_pairs(label, prediction)
    assert pairs.sum() == label.size
    for value in (0, 1, 2, 255):
        for predicted in range(3):
            both = (label == value) & (prediction == predicted)
            assert pairs[value, predicted] == both.sum()
