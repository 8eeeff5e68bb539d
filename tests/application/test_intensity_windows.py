"""Display ranges of intensities, and their decimals."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from napari_dycon.application.intensity_windows import (
    MAX_DECIMALS,
    choose_decimals,
    compute_statistics,
    is_head_ct,
)

Array = npt.NDArray[np.float32]
Spacing = tuple[float, float, float]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-1350, 150, 0), (0, 80, 1), (3, 146, 1), (0, 1, 3), (0.2, 0.25, 4), (5, 5, MAX_DECIMALS)],
)
def test_decimals_follow_the_width_of_the_range(low: float, high: float, expected: int) -> None:
    assert choose_decimals((low, high)) == expected


def make_ct(width_mm: float, length_mm: float, tissue_hu: float) -> tuple[Array, Spacing]:
    """A body of soft tissue with a wall of bone in air, ``(D, H, W)``, and its spacing."""
    spacing = (5.0, 2.0, 2.0)
    y, x = np.ogrid[-100:100, -120:120]
    radius = np.hypot(y * 2 / (length_mm / 2), x * 2 / (width_mm / 2))
    image = np.where(radius > 1, -1000.0, np.where(radius > 0.93, 1000.0, tissue_hu))
    return np.repeat(image[None].astype(np.float32), 12, axis=0), spacing


def test_a_head_is_recognized_by_its_size_and_brain() -> None:
    assert is_head_ct(*make_ct(150, 190, 35))
    assert not is_head_ct(*make_ct(360, 250, 35))  # an abdomen
    assert not is_head_ct(*make_ct(150, 190, -90))  # fat, as in a thigh
    assert not is_head_ct(*make_ct(60, 70, 35))  # an arm
    assert not is_head_ct(np.full((4, 8, 8), -1000.0, np.float32), (5.0, 2.0, 2.0))  # air


def test_the_automatic_range_excludes_extremes() -> None:
    channel = np.linspace(0, 100, 40**3, dtype=np.float32).reshape(40, 40, 40)
    channel[0, 0, 0] = 5000
    statistics = compute_statistics(channel)
    low, high = statistics.automatic
    assert 0 < low < 2
    assert 97 < high < 100
    assert statistics.full[1] == 5000
    assert statistics.counts.sum() == 20**3
    flat = compute_statistics(np.zeros((4, 4, 4), np.int16))
    assert flat.automatic[1] > flat.automatic[0]
