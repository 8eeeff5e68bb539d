"""Patch-based label fusion (Coupé et al., "Patch-based segmentation using expert priors", 2011).

Atlases are registered to the scan first. At each voxel, labels from a search neighborhood in every
registered atlas are averaged with weights given by patch similarity. A registration error of one
voxel, or an atlas that matches badly in one region, therefore does little harm. The gain over
majority voting is reported in docs/benchmarks.md.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_dycon.core.boxes import bounding_box
from napari_dycon.core.types import UNANNOTATED, Array
from napari_dycon.engine.atlas.box_filter import local_mean, local_sum
from napari_dycon.engine.device import use_single_thread

ArrayOrTensor = Array | Tensor

SEARCH_RADIUS = 1  # voxels of the search neighborhood around each voxel
PATCH_RADIUS = 2  # voxels of the patches that are compared
CONTRAST_RADIUS = 4  # voxels over which brightness and contrast are normalized
NOISE_VARIANCE_FRACTION = 0.05  # fraction of a channel's variance that counts as noise
EPS = 1e-3  # squared difference that counts as zero
TILE_SIZE = (32, 64, 64)  # voxels fused at a time
GPU_TILE_SIZE = (64, 96, 96)  # the same on a GPU, which small tiles would not fill
MAX_STATISTICS_VOXELS = 1_000_000  # sample for a channel's mean and variance

TILE_MARGIN = SEARCH_RADIUS + PATCH_RADIUS
SEARCH_SHIFTS = tuple(itertools.product(range(2 * SEARCH_RADIUS + 1), repeat=3))
CPU = torch.device("cpu")


class ChannelStatistics(NamedTuple):
    """Mean and variance of each channel, (C, 1, 1, 1); variance 0 for a constant channel."""

    mean: Tensor
    variance: Tensor


def fuse_labels(
    image: ArrayOrTensor,
    images: Sequence[ArrayOrTensor],
    labels: Sequence[ArrayOrTensor],
    *,
    min_consensus: float,
    min_atlases: int,
    should_stop: Callable[[], bool] = lambda: False,
    device: torch.device = CPU,
) -> npt.NDArray[np.uint8] | None:
    """Fuse the labels of registered atlases into one label of a scan.

    The weight of a voxel ``y`` in the search neighborhood of voxel ``x`` is
    ``w(x, y) = exp(-d(x, y) / (min_y d(x, y) + EPS))``, where ``d`` is the mean squared difference
    of the patches around both. A voxel gets the value whose fraction of the total weight reaches
    ``min_consensus``. Memory does not grow with the scan, since patches are compared tile by tile.
    On a GPU, the scans stay in their stored type and the host does not wait before the result.

    Parameters
    ----------
    image : (C, D, H, W) float, the scan; only the part around the structures is used
    images : registered atlas images of the same shape
    labels : their labels, (D, H, W) uint8; 255 voxels are ignored
    min_consensus : more than 0.5, so that at most one value can reach it
    min_atlases : a voxel with fewer labels than this stays 255
    should_stop : polled at each tile; returns ``None`` early when it returns true
    device : where the labels are fused

    Returns
    -------
    (D, H, W) uint8, 255 where the atlases do not agree
    """
    label_tensors = [_as_tensor(label, device) for label in labels]
    atlas_counts = torch.zeros(label_tensors[0].shape, dtype=torch.uint8, device=device)
    for label in label_tensors:
        atlas_counts += label != UNANNOTATED
    result = torch.zeros_like(atlas_counts).masked_fill_(atlas_counts < min_atlases, UNANNOTATED)
    values = sorted(label_values(label_tensors) - {UNANNOTATED})
    for tile, probabilities in _iterate_tile_probabilities(
        image, images, label_tensors, values, device
    ):
        if should_stop():
            return None
        tile_label = torch.full_like(atlas_counts[tile], UNANNOTATED)
        for value, probability in zip(values, probabilities, strict=True):
            tile_label.masked_fill_(probability >= min_consensus, value)
        result[tile] = tile_label.masked_fill_(atlas_counts[tile] < min_atlases, UNANNOTATED)
    return result.cpu().numpy()


def label_probabilities(
    image: ArrayOrTensor,
    images: Sequence[ArrayOrTensor],
    labels: Sequence[ArrayOrTensor],
    n_classes: int,
    *,
    device: torch.device = CPU,
    on_fraction: Callable[[float], None] | None = None,
) -> Tensor:
    """Compute class probabilities with the weights of ``fuse_labels``.

    Parameters
    ----------
    on_fraction : called after each tile with the fraction of the work that is done

    Returns
    -------
    (classes, D, H, W) on the device, sums of 1; background far from all structures and where no
    atlas has a label
    """
    label_tensors = [_as_tensor(label, device) for label in labels]
    result = torch.zeros(n_classes, *label_tensors[0].shape, device=device)
    result[0] = 1.0
    for tile, probabilities in _iterate_tile_probabilities(
        image, images, label_tensors, range(n_classes), device, on_fraction
    ):
        tile_result = result[(slice(None), *tile)]
        tile_result.copy_(torch.where(probabilities.sum(dim=0) > 0, probabilities, tile_result))
    return result


def _iterate_tile_probabilities(
    image: ArrayOrTensor,
    images: Sequence[ArrayOrTensor],
    labels: Sequence[Tensor],
    values: Sequence[int],
    device: torch.device,
    on_fraction: Callable[[float], None] | None = None,
) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
    """Yield tiles around the structures with the probability of each value; 0 without labels."""
    is_structure = torch.zeros(labels[0].shape, dtype=torch.bool, device=device)
    for label in labels:
        is_structure |= (label != 0) & (label != UNANNOTATED)
    box = bounding_box(is_structure.cpu().numpy(), SEARCH_RADIUS)
    if box is None:
        return
    volumes = [_move_to_device(volume, device) for volume in (image, *images)]
    statistics = [_channel_statistics(volume) for volume in volumes]
    size = TILE_SIZE if device.type == "cpu" else GPU_TILE_SIZE
    tiles = _split_into_tiles(box, size)
    for number, tile in enumerate(tiles, start=1):
        with use_single_thread(device):
            fixed, *tile_images = (
                normalize_local_contrast(
                    _crop(volume, tile, TILE_MARGIN + CONTRAST_RADIUS).float(), level
                )
                for volume, level in zip(volumes, statistics, strict=True)
            )
            fixed = _shift(
                fixed, (SEARCH_RADIUS,) * 3, [n - 2 * SEARCH_RADIUS for n in fixed.shape[1:]]
            )
            tile_labels = [_crop(label[None], tile, SEARCH_RADIUS)[0] for label in labels]
            probabilities = _compute_probabilities(fixed, tile_images, tile_labels, values)
        yield tile, probabilities
        if on_fraction is not None:
            on_fraction(number / len(tiles))


def normalize_local_contrast(image: Tensor, statistics: ChannelStatistics) -> Tensor:
    """Normalize local brightness and contrast of ``(C, D, H, W)``; smaller by the radius."""
    image = image - statistics.mean  # so that squares keep the precision of small differences
    mean = local_mean(image, CONTRAST_RADIUS)
    variance = (local_mean(image.square(), CONTRAST_RADIUS) - mean.square()).clamp(min=0.0)
    inner_shape = [n - 2 * CONTRAST_RADIUS for n in image.shape[1:]]
    centered = _shift(image, (CONTRAST_RADIUS,) * 3, inner_shape) - mean
    return (
        centered
        / (variance + NOISE_VARIANCE_FRACTION * statistics.variance).clamp(min=1e-12).sqrt()
        * (statistics.variance > 0)
    )


def label_values(labels: Sequence[Tensor]) -> set[int]:
    """Return the values that occur in uint8 labels."""
    counts = torch.stack([torch.bincount(label.flatten(), minlength=256) for label in labels])
    return {value for value, count in enumerate(counts.sum(dim=0).tolist()) if count}


def _as_tensor(volume: ArrayOrTensor, device: torch.device) -> Tensor:
    """Convert a volume to a tensor on a device; an array may be read-only."""
    if isinstance(volume, np.ndarray):
        volume = torch.from_numpy(np.require(volume, requirements="W"))
    return volume.to(device)


def _move_to_device(volume: ArrayOrTensor, device: torch.device) -> ArrayOrTensor:
    """Move a volume to a GPU; on the CPU the array, perhaps memory-mapped, is returned as is."""
    if device.type != "cpu":
        return _as_tensor(volume, device)
    return volume.numpy() if isinstance(volume, Tensor) else volume


def _channel_statistics(image: ArrayOrTensor) -> ChannelStatistics:
    """Compute mean and variance of a scan from evenly spaced voxels."""
    stride = max(1, round((math.prod(image.shape[1:]) / MAX_STATISTICS_VOXELS) ** (1 / 3)))
    subsampled = image[:, ::stride, ::stride, ::stride]
    if isinstance(subsampled, np.ndarray):
        subsampled = torch.from_numpy(subsampled.astype(np.float64))
    voxels = subsampled.double().flatten(1)
    mean, variance = voxels.mean(dim=1), voxels.var(dim=1, correction=0)
    # Rounding errors of a constant channel are no signal to compare.
    variance = torch.where(variance > 1e-6 * (1 + mean.square()), variance, 0.0)
    return ChannelStatistics(mean.float().view(-1, 1, 1, 1), variance.float().view(-1, 1, 1, 1))


def _split_into_tiles(box: Sequence[slice], max_size: Sequence[int]) -> list[tuple[slice, ...]]:
    """Split a box into tiles of similar size, none larger than ``max_size``."""
    slices = []
    for extent, size in zip(box, max_size, strict=True):
        count = math.ceil((extent.stop - extent.start) / size)
        ends = [extent.start + (extent.stop - extent.start) * n // count for n in range(count + 1)]
        slices.append([slice(*pair) for pair in itertools.pairwise(ends)])
    return list(itertools.product(*slices))


def _compute_probabilities(
    fixed: Tensor, images: Sequence[Tensor], labels: Sequence[Tensor], values: Sequence[int]
) -> Tensor:
    """Compute the probability of each value in a tile.

    The arrays extend beyond the tile by the margins that their neighborhoods need. Weights are
    computed only where the labels differ within the search neighborhood.
    """
    stacked_labels = torch.stack(list(labels))
    energy = local_mean(fixed.square().mean(dim=0), PATCH_RADIUS)
    lowest, highest = _neighborhood_extremes(stacked_labels)
    is_ambiguous = (lowest != highest) | energy.isnan()
    probabilities = torch.stack([(lowest == value) & ~is_ambiguous for value in values]).float()
    voxels = _select_voxels(is_ambiguous)
    if not len(voxels):
        return probabilities
    image_voxels = _convert_flat_indices(voxels, is_ambiguous.shape, stacked_labels.shape[1:])
    distance = _patch_distances(fixed, torch.stack(list(images)), voxels, image_voxels)
    distance += energy.flatten()[voxels]
    nearest = distance.clamp_(min=0.0).amin(dim=(0, 1))
    weight = distance.sub_(nearest).div_(-(nearest + EPS)).exp_()
    voxel_probabilities = torch.zeros(len(values), len(voxels), device=fixed.device)
    total = torch.zeros(len(voxels), device=fixed.device)
    flat_labels = stacked_labels.flatten(1)
    for number, offset in enumerate(_flat_offsets(stacked_labels.shape[1:])):
        label = flat_labels.index_select(1, image_voxels + offset)
        weight[number].masked_fill_(label == UNANNOTATED, 0.0)
        total += weight[number].sum(dim=0)
        for class_index, value in enumerate(values[1:], start=1):  # the first gets the remainder
            voxel_probabilities[class_index] += (weight[number] * (label == value)).sum(dim=0)
    voxel_probabilities[0] = (total - voxel_probabilities.sum(dim=0)).clamp_(min=0.0)
    voxel_probabilities /= voxel_probabilities.sum(dim=0).clamp(
        min=torch.finfo(voxel_probabilities.dtype).tiny
    )
    probabilities.flatten(1).index_copy_(1, voxels, voxel_probabilities)
    return probabilities


def _patch_distances(fixed: Tensor, images: Tensor, voxels: Tensor, image_voxels: Tensor) -> Tensor:
    """Compute mean squared differences of patches, less the mean square of the patch of ``fixed``.

    ``(a - b)^2 = a^2 - 2 a b + b^2``, of which only the middle term depends on the shift.

    Parameters
    ----------
    fixed, images : (C, D, H, W), and (V, C, ...) that extend ``SEARCH_RADIUS`` further
    voxels, image_voxels : (voxels,), flat indices of the voxels in ``fixed`` and in ``images``

    Returns
    -------
    (shifts, V, voxels)
    """
    count, channels = images.shape[:2]
    energy = local_mean(images.square().mean(dim=1), PATCH_RADIUS)
    distance = torch.empty(len(SEARCH_SHIFTS), count, len(voxels), device=fixed.device)
    for number, offset in enumerate(_flat_offsets(energy.shape[1:])):
        product = _shift(images, SEARCH_SHIFTS[number], fixed.shape[1:]) * fixed
        product = product[:, 0] if channels == 1 else product.mean(dim=1)
        sums = local_sum(product, PATCH_RADIUS).flatten(1).index_select(1, voxels)
        torch.index_select(energy.flatten(1), 1, image_voxels + offset, out=distance[number])
        distance[number].sub_(sums, alpha=2 / (2 * PATCH_RADIUS + 1) ** 3)
    return distance


def _neighborhood_extremes(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Find the lowest and highest label of ``(V, D, H, W)`` in each voxel's search neighborhood."""
    lowest, highest = labels.amin(dim=0), labels.amax(dim=0)
    for axis in range(3):
        lowest = lowest.unfold(axis, 2 * SEARCH_RADIUS + 1, 1).amin(dim=-1)
        highest = highest.unfold(axis, 2 * SEARCH_RADIUS + 1, 1).amax(dim=-1)
    return lowest, highest


def _select_voxels(is_ambiguous: Tensor) -> Tensor:
    """Select flat indices of ambiguous voxels; all voxels on a GPU, to avoid a synchronization."""
    if is_ambiguous.device.type == "cpu":
        return is_ambiguous.flatten().nonzero()[:, 0]
    return torch.arange(is_ambiguous.numel(), device=is_ambiguous.device)


def _convert_flat_indices(
    indices: Tensor, shape: Sequence[int], larger_shape: Sequence[int]
) -> Tensor:
    """Convert flat indices to those of the same voxels in a larger array with the same corner."""
    row, x = indices // shape[2], indices % shape[2]
    z, y = row // shape[1], row % shape[1]
    return (z * larger_shape[1] + y) * larger_shape[2] + x


def _flat_offsets(size: Sequence[int]) -> list[int]:
    """Compute what each shift adds to a flat index in an array of that size."""
    return [(z * size[1] + y) * size[2] + x for z, y, x in SEARCH_SHIFTS]


def _crop(volume: ArrayOrTensor, box: Sequence[slice], margin: int) -> Tensor:
    """Crop ``(C, D, H, W)`` to a box with a margin; edge voxels are repeated outside the scan."""
    for axis, extent in enumerate(box, start=1):
        first, stop, last = extent.start - margin, extent.stop + margin, volume.shape[axis] - 1
        if isinstance(volume, Tensor):
            rows = torch.arange(first, stop, device=volume.device).clamp_(0, last)
            volume = volume.index_select(axis, rows)
        else:
            volume = volume.take(np.arange(first, stop).clip(0, last), axis=axis)
    return volume if isinstance(volume, Tensor) else torch.from_numpy(volume)


def _shift(array: Tensor, shift: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Return a view of ``(..., D, H, W)`` with the given shape, starting at a shifted corner."""
    for axis, (start, length) in enumerate(zip(shift, shape, strict=True), start=-3):
        array = array.narrow(axis, start, length)
    return array
