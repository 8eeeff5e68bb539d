"""Uncertain regions end before the thin border that surrounds every structure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from napari_dycon.application.hotspots import MIN_THRESHOLD, find_hotspots

Map = np.ndarray[Any, Any]


def make_shell() -> Map:
    """Return a map with an uncertain border, one voxel thick, around a sphere of 20 mm."""
    d, h, w = np.indices((64, 64, 64)) - 31.5
    distance = np.sqrt(d**2 + h**2 + w**2)
    return np.where(np.abs(distance - 20) < 0.6, 0.7, 0.02).astype(np.float32)


def test_a_place_that_stands_out_of_a_border_is_the_only_region() -> None:
    uncertainty = make_shell()
    uncertainty[28:36, 28:36, 48:56] = 0.9
    (hotspot,) = find_hotspots(uncertainty)
    assert all(27 <= index <= 36 for index in hotspot.center[:2])
    assert 47 <= hotspot.center[2] <= 56
    assert 0.7 < hotspot.mean_uncertainty <= 0.9


def test_small_separate_regions_count_beside_a_large_one() -> None:
    uncertainty = np.full((64, 64, 64), 0.02, np.float32)
    uncertainty[4:12, 4:12, 4:12] = 0.9
    for place in (20, 32, 44):
        uncertainty[place : place + 4, place : place + 4, place : place + 4] = 0.8
    found = find_hotspots(uncertainty)
    assert [hotspot.voxels for hotspot in found[1:]] == [64] * 3
    assert [hotspot.mean_uncertainty for hotspot in found[1:]] == pytest.approx([0.8] * 3)


def test_nothing_below_the_threshold_is_a_region() -> None:
    uncertainty = np.full((40, 40, 40), 0.02, np.float32)
    uncertainty[10:20, 10:20, 10:20] = MIN_THRESHOLD - 0.02
    assert find_hotspots(uncertainty) == []
    uncertainty[10:20, 10:20, 10:20] = MIN_THRESHOLD + 0.02
    assert find_hotspots(uncertainty)


def test_a_network_that_is_uncertain_everywhere_gives_its_most_uncertain_places() -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(90, 90, 90)), 4.0)
    uncertainty = np.clip(0.75 + 0.1 * noise / noise.std(), 0, 1).astype(np.float32)
    found = find_hotspots(uncertainty, max_count=200)
    assert 1 <= len(found) <= 40
    assert all(hotspot.mass >= 0.5 * found[0].mass for hotspot in found)
    assert min(hotspot.mean_uncertainty for hotspot in found) > np.quantile(uncertainty, 0.97)


def test_surroundings_of_zeros_change_nothing() -> None:
    """Only the box around notable voxels is searched, on the same grid of cells."""
    rng = np.random.default_rng(5)
    uncertainty = np.zeros((40, 44, 48), np.float32)
    uncertainty[9:31, 11:30, 8:35] = rng.random((22, 19, 27))
    spots = find_hotspots(uncertainty, (1.0, 0.5, 0.8), threshold=0.6)
    padded = find_hotspots(np.pad(uncertainty, 12), (1.0, 0.5, 0.8), threshold=0.6)
    assert len(spots) > 3
    for spot, other in zip(spots, padded, strict=True):
        assert other.center == tuple(c + 12 for c in spot.center)
        assert other.mass == pytest.approx(spot.mass)
