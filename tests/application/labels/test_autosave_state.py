"""Comparison of a label with its last saved copy."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dycon.application.labels.autosave_state import are_equal


@pytest.mark.parametrize("shape", [(2, 4, 8), (3, 5, 7)])
def test_labels_differ_by_a_single_voxel(shape: tuple[int, ...]) -> None:
    label = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    for one in (label, label[::-1], label.T):
        other = one.copy()
        assert are_equal(one, other)
        other.flat[-1] ^= 1
        assert not are_equal(one, other)
    assert not are_equal(label, label.reshape(shape[::-1]))
