"""The curve of uncertainty over the slices of a case."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dycon.application.slice_profile import MIN_RANGE, compute_slice_profile

LABEL = np.full((4, 5, 5), 255, np.uint8)


def make_map(values: list[float]) -> np.ndarray:
    return np.broadcast_to(np.float32(values)[:, None, None], LABEL.shape).copy()


def test_slices_of_a_young_network_differ_visibly() -> None:
    profile = compute_slice_profile(LABEL, make_map([0.60, 0.66, 0.63, 0.60]), 0)
    assert profile.uncertainty is not None
    assert profile.curve is not None
    assert profile.uncertainty == pytest.approx([0.60, 0.66, 0.63, 0.60], rel=1e-5)
    assert profile.curve == pytest.approx([0, 1, 0.5, 0], abs=1e-4)


def test_equal_slices_are_not_stretched_to_noise() -> None:
    profile = compute_slice_profile(LABEL, make_map([0.600, 0.601, 0.600, 0.600]), 0)
    assert profile.curve is not None
    assert profile.curve.max() == pytest.approx(0.001 / (MIN_RANGE * 0.601), rel=0.01)


@pytest.mark.parametrize("value", [0.0, 0.1, 0.7])
def test_equal_slices_are_a_flat_line(value: float) -> None:
    profile = compute_slice_profile(LABEL, make_map([value] * 4), 0)
    assert profile.curve is not None
    assert profile.curve.tolist() == [0, 0, 0, 0]


def test_certain_voxels_do_not_count() -> None:
    profile = compute_slice_profile(LABEL, make_map([0.1, 0.4, 0.1, 0.8]), 0)
    assert profile.uncertainty == pytest.approx([0, 0.4, 0, 0.8], rel=1e-5)


def test_there_is_no_curve_without_a_prediction() -> None:
    profile = compute_slice_profile(LABEL, None, 1)
    assert profile.uncertainty is None
    assert profile.curve is None
