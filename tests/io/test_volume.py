"""Intensity ranges of volumes."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dycon.io.volume import intensity_range


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32", "float64"])
def test_the_intensity_range_excludes_the_darkest_and_brightest_voxels(dtype: str) -> None:
    voxels = np.random.default_rng(0).integers(0, 200, (11, 12, 13)).astype(dtype)
    voxels[0, 0, :3] = 255
    expected = np.quantile(voxels, (0.005, 0.995))
    assert intensity_range(voxels) == (float(expected[0]), float(expected[1]))
    assert intensity_range(voxels, (0.0, 1.0)) == (0.0, 255.0)
