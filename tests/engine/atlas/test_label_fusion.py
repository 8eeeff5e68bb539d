"""Fusion of registered labels, weighted by patch similarity."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from napari_dycon.core.types import UNANNOTATED
from napari_dycon.engine.atlas import label_fusion
from napari_dycon.engine.atlas.label_fusion import (
    CONTRAST_RADIUS,
    EPS,
    PATCH_RADIUS,
    SEARCH_RADIUS,
    ChannelStatistics,
    fuse_labels,
    label_probabilities,
    normalize_local_contrast,
)

Image = npt.NDArray[np.float32]
Labels = list[npt.NDArray[np.uint8]]


def make_scans(
    count: int, shape: tuple[int, ...] = (8, 9, 10), channels: int = 1
) -> tuple[Image, list[Image], Labels]:
    """A scan, others like it, and blocky labels with an unannotated part."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(channels, *shape)).astype(np.float32)
    images = [image + rng.normal(0, 0.5, image.shape).astype(np.float32) for _ in range(count)]
    labels = []
    for number in range(count):
        label = np.zeros(shape, np.uint8)
        label[2 + number % 2 : 7, 3:8, 2 : 7 + number % 3] = 1
        label[2:7, 3:8, 2:4] = 2
        label[:, :, -1 - number :] = UNANNOTATED
        labels.append(label)
    return image, images, labels


def fuse_voxelwise(
    image: Image, images: list[Image], labels: Labels, agreement: float, atlases: int
) -> npt.NDArray[np.uint8]:
    """The definition, voxel by voxel in float64."""

    def patches(array: Image) -> npt.NDArray[np.float64]:
        margin = [(0, 0), *[(SEARCH_RADIUS + PATCH_RADIUS + CONTRAST_RADIUS,) * 2] * 3]
        voxels = torch.from_numpy(array.astype(np.float64))
        parts = voxels.mean((1, 2, 3)), voxels.var((1, 2, 3), correction=0)
        level = ChannelStatistics(*(part.view(-1, 1, 1, 1) for part in parts))
        even = normalize_local_contrast(
            torch.from_numpy(np.pad(voxels.numpy(), margin, mode="edge")), level
        )
        windows = np.lib.stride_tricks.sliding_window_view(
            even.numpy(), (2 * PATCH_RADIUS + 1,) * 3, (1, 2, 3)
        )
        return windows.transpose(1, 2, 3, 0, 4, 5, 6)

    fixed, others = patches(image), [patches(other) for other in images]
    padded = [np.pad(label, SEARCH_RADIUS, mode="edge") for label in labels]
    result = np.full(labels[0].shape, UNANNOTATED, np.uint8)
    for voxel in np.ndindex(*result.shape):
        here = fixed[tuple(np.add(voxel, SEARCH_RADIUS))]
        distances, values = [], []
        for other, label in zip(others, padded, strict=True):
            for shift in itertools.product(range(-SEARCH_RADIUS, SEARCH_RADIUS + 1), repeat=3):
                there = tuple(np.add(voxel, np.add(shift, SEARCH_RADIUS)))
                distances.append(np.mean((here - other[there]) ** 2))
                values.append(label[there])
        d, v = np.array(distances), np.array(values)
        weight = np.exp(-(d - d.min()) / (d.min() + EPS)) * (v != UNANNOTATED)
        known = sum(label[voxel] != UNANNOTATED for label in labels)
        for value in set(v.tolist()) - {UNANNOTATED}:
            if known >= atlases and weight[v == value].sum() >= agreement * weight.sum() > 0:
                result[voxel] = value
    return result


@pytest.mark.parametrize(("count", "channels", "atlases"), [(1, 1, 1), (3, 1, 2), (2, 2, 1)])
def test_fusion_equals_its_definition(count: int, channels: int, atlases: int) -> None:
    image, images, labels = make_scans(count, channels=channels)
    found = fuse_labels(image, images, labels, min_consensus=0.6, min_atlases=atlases)
    wanted = fuse_voxelwise(image, images, labels, 0.6, atlases)
    assert {0, 1, 2, UNANNOTATED} == set(np.unique(wanted).tolist())
    np.testing.assert_array_equal(found, wanted)


def test_tiled_fusion_gives_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    image, images, labels = make_scans(2)
    whole = fuse_labels(image, images, labels, min_consensus=0.6, min_atlases=1)
    monkeypatch.setattr(label_fusion, "TILE_SIZE", (3, 2, 5))
    np.testing.assert_array_equal(
        fuse_labels(image, images, labels, min_consensus=0.6, min_atlases=1), whole
    )


def test_a_shift_of_a_voxel_and_a_dissimilar_atlas_do_no_harm() -> None:
    truth = np.zeros((20, 24, 22), np.uint8)
    truth[6:14, 7:17, 6:16] = 1
    rng = np.random.default_rng(0)
    image = (truth * 2.0 + rng.normal(0, 0.2, truth.shape)).astype(np.float32)
    images, labels = [], []
    for axis, by in ((0, 1), (1, -1), (2, 1)):
        images.append(np.roll(image, by, axis))
        labels.append(np.roll(truth, by, axis))
    images.append(np.roll(image, 6, 1))  # this one lies far off
    labels.append(np.roll(truth, 6, 1))
    assert all((label != truth).sum() > 150 for label in labels)
    everything = [array[None] for array in (image, *images)]
    found = fuse_labels(everything[0], everything[1:], labels, min_consensus=0.7, min_atlases=3)
    known = found != UNANNOTATED
    assert known.mean() > 0.97
    assert (found[known] != truth[known]).sum() < 10


def test_fusion_does_not_depend_on_brightness_and_contrast() -> None:
    image, images, labels = make_scans(3)
    plain = fuse_labels(image, images, labels, min_consensus=0.6, min_atlases=1)
    slope = np.linspace(0.0, 2.0, image.shape[2], dtype=np.float32)[:, None]
    other = fuse_labels(image * 30.0 + 100.0, images, labels, min_consensus=0.6, min_atlases=1)
    np.testing.assert_array_equal(plain, other)
    other = fuse_labels(image + slope, images, labels, min_consensus=0.6, min_atlases=1)
    assert (plain == other).mean() > 0.9


def test_too_few_labeled_atlases_give_no_result() -> None:
    image, images, labels = make_scans(3)
    nothing = [np.full_like(label, UNANNOTATED) for label in labels]
    assert (
        fuse_labels(image, images, nothing, min_consensus=0.6, min_atlases=1) == UNANNOTATED
    ).all()
    empty = [np.zeros_like(label) for label in labels]
    assert (fuse_labels(image, images, empty, min_consensus=0.6, min_atlases=3) == 0).all()
    assert (
        fuse_labels(image, images, empty, min_consensus=0.6, min_atlases=4) == UNANNOTATED
    ).all()
    labels[0][:5] = UNANNOTATED
    found = fuse_labels(image, images, labels, min_consensus=0.6, min_atlases=3)
    assert (found[:5] == UNANNOTATED).all()
    assert (found[5:, :, :8] != UNANNOTATED).any()


@pytest.mark.parametrize("constant", [0.0, 7.0, 15.26, 61.04])
def test_a_constant_channel_is_ignored(constant: float) -> None:
    image, images, labels = make_scans(2)
    plain = fuse_labels(image, images, labels, min_consensus=0.6, min_atlases=1)
    flat = np.full_like(image, constant)
    twice = [np.concatenate([a, flat]).astype(np.float16) for a in (image, *images)]
    found = fuse_labels(twice[0], twice[1:], labels, min_consensus=0.6, min_atlases=1)
    assert plain is not None
    assert found is not None
    assert (found == plain).mean() > 0.98  # voxels of half precision


def test_nonfinite_values_are_ignored() -> None:
    image, images, labels = make_scans(2)
    image[0, 4, 4, 4] = np.nan
    found = fuse_labels(image, images, labels, min_consensus=0.6, min_atlases=1)
    assert found is not None
    assert set(np.unique(found[2:7, 3:8, 2:8]).tolist()) == {UNANNOTATED}


def test_a_small_part_of_a_label_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    shares = label_fusion._compute_probabilities
    monkeypatch.setattr(
        label_fusion, "_compute_probabilities", lambda *a: seen.append(a[0].shape) or shares(*a)
    )
    image, images, labels = make_scans(1, (40, 41, 42))
    labels[0][:] = UNANNOTATED
    labels[0][10:14, 10:14, 20] = 0
    labels[0][11:13, 11:13, 20] = 1
    fuse_labels(image, images, labels, min_consensus=0.6, min_atlases=1)
    assert seen == [(1, *(n + 2 * PATCH_RADIUS for n in (4, 4, 3)))]


def test_fusion_stops_when_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_fusion, "TILE_SIZE", (3, 3, 3))
    image, images, labels = make_scans(2)
    asked = iter([False, False, True])
    assert (
        fuse_labels(
            image, images, labels, min_consensus=0.6, min_atlases=1, should_stop=lambda: next(asked)
        )
        is None
    )


@pytest.mark.parametrize("shape", [(1, 9, 9), (2, 3, 4), (1, 1, 2)])
def test_tiny_scans_are_fused(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    label = np.ones(shape, np.uint8)
    found = fuse_labels(image, [image], [label], min_consensus=0.6, min_atlases=1)
    np.testing.assert_array_equal(found, label)


def test_only_the_region_around_the_labels_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    image, images, labels = make_scans(2, (30, 31, 32))
    for label in labels:
        label[label == UNANNOTATED] = 0
    monkeypatch.setattr(
        label_fusion,
        "_channel_statistics",
        lambda _: ChannelStatistics(torch.zeros(()), torch.ones(())),
    )
    found = fuse_labels(image, images, labels, min_consensus=0.6, min_atlases=1)
    far = SEARCH_RADIUS + SEARCH_RADIUS + PATCH_RADIUS + CONTRAST_RADIUS
    for array in (image, *images):
        array[:, 7 + far :] = np.nan
        array[:, :, 8 + far :] = np.nan
    np.testing.assert_array_equal(
        fuse_labels(image, images, labels, min_consensus=0.6, min_atlases=1), found
    )
    assert {0, 1, 2} <= set(np.unique(found).tolist())


class _Reads(TorchDispatchMode):
    """Counts what a host would wait for a GPU for."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(name in str(func) for name in ("_local_scalar_dense", "nonzero", "masked_select")):
            self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("tile", [(32, 64, 64), (2, 3, 2)])
def test_tensors_are_fused_like_arrays_without_synchronization(
    monkeypatch: pytest.MonkeyPatch, tile: tuple[int, int, int]
) -> None:
    image, images, labels = make_scans(3)
    wanted = fuse_labels(image, images, labels, min_consensus=0.6, min_atlases=2)
    shares = label_probabilities(image, images, labels, 3)
    monkeypatch.setattr(
        label_fusion, "_move_to_device", label_fusion._as_tensor
    )  # as on a GPU, here and below
    monkeypatch.setattr(label_fusion, "_select_voxels", lambda unsure: torch.arange(unsure.numel()))
    monkeypatch.setattr(label_fusion, "TILE_SIZE", tile)
    tensors = [torch.from_numpy(array) for array in (*images, *labels)]
    with _Reads() as reads:
        found = fuse_labels(image, tensors[:3], tensors[3:], min_consensus=0.6, min_atlases=2)
    assert reads.count <= 1  # whether anything was drawn
    np.testing.assert_array_equal(found, wanted)
    again = label_probabilities(image, tensors[:3], tensors[3:], 3)
    torch.testing.assert_close(again, shares, rtol=0, atol=1e-6)
    torch.testing.assert_close(again.sum(dim=0), torch.ones(image.shape[1:]))
