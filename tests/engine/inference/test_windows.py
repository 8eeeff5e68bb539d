"""Sliding windows: few, of equal size, without padding, blended without seams."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.utils import dense_patch_slices

from napari_dycon.engine.inference.windows import OVERLAP_SIDE, plan_windows, predict_windows

CPU = torch.device("cpu")


@given(st.integers(1, 600), st.integers(1, 128), st.sampled_from([0.5, 1.0, 1.25, 2.0]))
def test_the_number_of_windows_is_minimal(length: int, patch: int, side: float) -> None:
    (size, *_), (count, *_) = plan_windows([length] * 3, [patch] * 3, side=side)
    longest = max(int(patch * side), 1)
    overlap = min(int(patch * OVERLAP_SIDE), longest // 2)
    assert size == min(longest, length)  # not as small as just covers the scan
    assert count * size - (count - 1) * overlap >= length
    if count > 1:
        fewer = count - 1
        assert fewer * longest - (fewer - 1) * overlap < length


@pytest.mark.parametrize(("length", "patch"), [(6, 3), (9, 3), (8, 2), (5, 1), (7, 4)])
def test_thin_patches_give_adjacent_windows(length: int, patch: int) -> None:
    image = torch.randn(1, length, 20, 20)
    windows = plan_windows((length, 20, 20), (patch, 16, 16), side=1.0)
    found = predict_windows(image, torch.clone, windows, device=CPU, stitch_device=CPU)
    torch.testing.assert_close(found, image)


@pytest.mark.parametrize("shape", [(65, 71, 63), (5, 90, 33), (1, 40, 40), (200, 17, 64)])
def test_every_voxel_is_covered_and_few_more_than_once(shape: tuple[int, int, int]) -> None:
    seen = []

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape[2:]))
        return x.clone()

    image = torch.randn(2, *shape)
    windows = plan_windows(shape, (32, 32, 32), side=1.25)
    found = predict_windows(image, look, windows, device=CPU, stitch_device=CPU)
    torch.testing.assert_close(found, image, atol=1e-5, rtol=1e-5)
    assert set(seen) == {windows.size}
    assert len(seen) == math.prod(windows.counts)
    most = math.prod(1.5 if count > 1 else 1.0 for count in windows.counts)
    assert len(seen) * math.prod(windows.size) <= most * math.prod(shape)


@settings(max_examples=60)
@given(st.integers(20, 300), st.integers(8, 64))
def test_windows_equal_those_of_monai(length: int, side: int) -> None:
    windows = plan_windows([length] * 3, [side] * 3, side=1.0)
    (size, *_), (count, *_) = windows
    if count == 1:
        assert size == length
        return
    step = -(-(length - size) // (count - 1))
    assert len(dense_patch_slices([length], [size], [step])) == count


def test_windows_on_a_gpu_are_batched() -> None:
    sizes = []

    def look(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return x.clone()

    image = torch.randn(1, 60, 60, 60)
    windows = plan_windows((60, 60, 60), (16, 16, 16), side=1.5)
    found = predict_windows(image, look, windows, device=CPU, stitch_device=CPU, batch_size=4)
    torch.testing.assert_close(found, image, atol=1e-5, rtol=1e-5)
    assert max(sizes) == 4
