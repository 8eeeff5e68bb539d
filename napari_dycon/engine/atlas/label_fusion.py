"""What several deformed labels say of one scan, each heard where its own scan looks like it.

Patch-based label fusion after Coupé et al., "Patch-based segmentation using expert priors",
NeuroImage 2011, on scans that were registered first: a voxel asks the voxels near it in every
deformed scan, and each answers with the weight of how alike their neighborhoods are. So a
registration that is a voxel off, or a scan that matches badly in one place, does little harm: on
unlabeled scans of the hippocampus and of the left atrium the fused label is right by two to four
points of Dice more than the label most voters give (benchmarks/RESULTS.md).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_dycon.engine.atlas.box_filter import box_mean, box_sum
from napari_dycon.engine.device import one_thread
from napari_dycon.engine.losses.segmentation import UNANNOTATED

Array = npt.NDArray[Any]
Volume = Array | Tensor

SEARCH = 1  # voxels around a place that are asked as well
PATCH = 2  # voxels around these that are compared
CONTRAST = 4  # voxels around each over which brightness and contrast are evened out
FLAT = 0.05  # of a channel's variance that counts as noise
NEAR = 1e-3  # squared difference that is none
TILE = (32, 64, 64)  # voxels fused at a time
GPU_TILE = (64, 96, 96)  # likewise on a GPU, which small tiles do not fill
SAMPLE = 1_000_000  # voxels from which a channel's mean and variance are told

REACH = SEARCH + PATCH
SHIFTS = tuple(itertools.product(range(2 * SEARCH + 1), repeat=3))
CPU = torch.device("cpu")


class Level(NamedTuple):
    """Mean and variance of each channel, (C, 1, 1, 1); a variance of 0 where nothing is seen."""

    mean: Tensor
    variance: Tensor


def fuse(
    image: Volume,
    images: Sequence[Volume],
    labels: Sequence[Volume],
    *,
    agreement: float,
    voters: int,
    enough: Callable[[], bool] = lambda: False,
    device: torch.device = CPU,
) -> npt.NDArray[np.uint8] | None:
    """Label of a scan from labeled ones that were deformed into it.

    With patches ``P`` around a voxel ``x`` and around each of the places ``y`` near it in the
    deformed scans, ``w(x, y) = exp(-d(x, y) / (min_y d(x, y) + NEAR))``, ``d`` the mean squared
    difference of the patches; the value whose share of all ``w`` reaches ``agreement`` is given.
    Memory does not grow with the scan: what is compared is read tile by tile. A GPU holds the
    scans as they are stored, and is not waited for before the result.

    Parameters
    ----------
    image : (C, D, H, W) float, the scan; only the part around the structures is looked at
    images : of the same shape, one a voter
    labels : (D, H, W) uint8, theirs; a voter abstains where it is 255
    agreement : more than half, so that one value alone can reach it
    voters : where fewer have a label, nothing is said
    enough : asked at each tile; when it answers yes, nothing is returned
    device : where it is computed

    Returns
    -------
    (D, H, W) uint8, 255 where the voters do not agree
    """
    drawn = [_as_tensor(label, device) for label in labels]
    known = torch.zeros(drawn[0].shape, dtype=torch.uint8, device=device)
    for label in drawn:
        known += label != UNANNOTATED
    result = torch.zeros_like(known).masked_fill_(known < voters, UNANNOTATED)
    values = sorted(label_values(drawn) - {UNANNOTATED})
    for tile, shares in _tile_shares(image, images, drawn, values, device):
        if enough():
            return None
        inside = torch.full_like(known[tile], UNANNOTATED)
        for value, share in zip(values, shares, strict=True):
            inside.masked_fill_(share >= agreement, value)
        result[tile] = inside.masked_fill_(known[tile] < voters, UNANNOTATED)
    return result.cpu().numpy()


def shares_of(
    image: Volume,
    images: Sequence[Volume],
    labels: Sequence[Volume],
    classes: int,
    *,
    device: torch.device = CPU,
) -> Tensor:
    """What share of the voters' weight each class has, as ``fuse`` weighs them.

    Returns
    -------
    (classes, D, H, W) on the device, sums of 1; background far from all structures and where
    nobody votes
    """
    drawn = [_as_tensor(label, device) for label in labels]
    result = torch.zeros(classes, *drawn[0].shape, device=device)
    result[0] = 1.0
    for tile, shares in _tile_shares(image, images, drawn, range(classes), device):
        part = result[(slice(None), *tile)]
        part.copy_(torch.where(shares.sum(dim=0) > 0, shares, part))
    return result


def _tile_shares(
    image: Volume,
    images: Sequence[Volume],
    labels: Sequence[Tensor],
    values: Sequence[int],
    device: torch.device,
) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
    """Tiles around the structures, and the share of each value there, 0 where nobody votes."""
    drawn = torch.zeros(labels[0].shape, dtype=torch.bool, device=device)
    for label in labels:
        drawn |= (label != 0) & (label != UNANNOTATED)
    if not bool(drawn.any()):
        return
    volumes = [_on_device(volume, device) for volume in (image, *images)]
    levels = [_level(volume) for volume in volumes]
    size = TILE if device.type == "cpu" else GPU_TILE
    for tile in _tiles(box_around(drawn.cpu().numpy(), SEARCH), size):
        with one_thread(device):
            fixed, *moved = (
                even_out(_part(volume, tile, REACH + CONTRAST).float(), level)
                for volume, level in zip(volumes, levels, strict=True)
            )
            fixed = _shifted(fixed, (SEARCH,) * 3, [n - 2 * SEARCH for n in fixed.shape[1:]])
            said = [_part(label[None], tile, SEARCH)[0] for label in labels]
            found = _shares(fixed, moved, said, values)
        yield tile, found


def box_around(mask: npt.NDArray[np.bool_], margin: int) -> tuple[slice, ...]:
    """Smallest box around what is set in ``(D, H, W)``, and a margin as far as the volume goes."""
    box = []
    for axis, length in enumerate(mask.shape):
        others = tuple(other for other in range(3) if other != axis)
        places = np.flatnonzero(mask.any(axis=others))
        box.append(slice(max(places[0] - margin, 0), min(places[-1] + 1 + margin, length)))
    return tuple(box)


def even_out(image: Tensor, level: Level) -> Tensor:
    """``(C, D, H, W)`` with brightness and contrast made alike, smaller by the places around it."""
    image = image - level.mean  # so that squares do not swallow small differences
    mean = box_mean(image, CONTRAST)
    variance = (box_mean(image.square(), CONTRAST) - mean.square()).clamp(min=0.0)
    inside = [n - 2 * CONTRAST for n in image.shape[1:]]
    evened = _shifted(image, (CONTRAST,) * 3, inside) - mean
    return (
        evened / (variance + FLAT * level.variance).clamp(min=1e-12).sqrt() * (level.variance > 0)
    )


def label_values(labels: Sequence[Tensor]) -> set[int]:
    """Values of uint8 labels."""
    counts = torch.stack([torch.bincount(label.flatten(), minlength=256) for label in labels])
    return {value for value, count in enumerate(counts.sum(dim=0).tolist()) if count}


def _as_tensor(volume: Volume, device: torch.device) -> Tensor:
    """A volume as a tensor on a device; an array may be read-only."""
    if isinstance(volume, np.ndarray):
        volume = torch.from_numpy(np.require(volume, requirements="W"))
    return volume.to(device)


def _on_device(volume: Volume, device: torch.device) -> Volume:
    """A tensor on a GPU; an array, perhaps memory-mapped, for the CPU."""
    if device.type != "cpu":
        return _as_tensor(volume, device)
    return volume.numpy() if isinstance(volume, Tensor) else volume


def _level(image: Volume) -> Level:
    """Mean and variance of a scan, from voxels evenly spread over it."""
    step = max(1, round((math.prod(image.shape[1:]) / SAMPLE) ** (1 / 3)))
    some = image[:, ::step, ::step, ::step]
    if isinstance(some, np.ndarray):
        some = torch.from_numpy(some.astype(np.float64))
    voxels = some.double().flatten(1)
    mean, variance = voxels.mean(dim=1), voxels.var(dim=1, correction=0)
    # What rounding makes of a constant channel is nothing to compare.
    variance = torch.where(variance > 1e-6 * (1 + mean.square()), variance, 0.0)
    return Level(mean.float().view(-1, 1, 1, 1), variance.float().view(-1, 1, 1, 1))


def _tiles(box: Sequence[slice], most: Sequence[int]) -> list[tuple[slice, ...]]:
    """Cut a box into tiles of at most a size, about as large as each other."""
    rows = []
    for part, size in zip(box, most, strict=True):
        count = math.ceil((part.stop - part.start) / size)
        ends = [part.start + (part.stop - part.start) * n // count for n in range(count + 1)]
        rows.append([slice(*pair) for pair in itertools.pairwise(ends)])
    return list(itertools.product(*rows))


def _shares(
    fixed: Tensor, images: Sequence[Tensor], labels: Sequence[Tensor], values: Sequence[int]
) -> Tensor:
    """Shares in a tile, from arrays that reach beyond it by what each is looked at for.

    Weights are computed only where the labels differ within the search neighborhood.
    """
    drawn = torch.stack(list(labels))
    energy = box_mean(fixed.square().mean(dim=0), PATCH)
    lowest, highest = _extremes_around(drawn)
    unsure = (lowest != highest) | energy.isnan()
    shares = torch.stack([(lowest == value) & ~unsure for value in values]).float()
    here = _looked_at(unsure)
    if not len(here):
        return shares
    there = _renumbered(here, unsure.shape, drawn.shape[1:])
    distance = _distances(fixed, torch.stack(list(images)), here, there)
    distance += energy.flatten()[here]
    nearest = distance.clamp_(min=0.0).amin(dim=(0, 1))
    weight = distance.sub_(nearest).div_(-(nearest + NEAR)).exp_()
    found = torch.zeros(len(values), len(here), device=fixed.device)
    total = torch.zeros(len(here), device=fixed.device)
    flat_labels = drawn.flatten(1)
    for number, offset in enumerate(_offsets(drawn.shape[1:])):
        label = flat_labels.index_select(1, there + offset)
        weight[number].masked_fill_(label == UNANNOTATED, 0.0)
        total += weight[number].sum(dim=0)
        for place, value in enumerate(values[1:], start=1):  # the first has the rest
            found[place] += (weight[number] * (label == value)).sum(dim=0)
    found[0] = (total - found.sum(dim=0)).clamp_(min=0.0)
    found /= found.sum(dim=0).clamp(min=torch.finfo(found.dtype).tiny)
    shares.flatten(1).index_copy_(1, here, found)
    return shares


def _distances(fixed: Tensor, images: Tensor, here: Tensor, there: Tensor) -> Tensor:
    """Mean squared differences of patches, without the mean square of the patch of ``fixed``.

    ``(a - b)^2 = a^2 - 2 a b + b^2``, of which only the middle has to be added up for each shift.

    Parameters
    ----------
    fixed, images : (C, D, H, W), and (V, C, ...) that reach ``SEARCH`` further
    here, there : (voxels,), flat indices of the voxels looked at, in either

    Returns
    -------
    (shifts, V, voxels)
    """
    count, channels = images.shape[:2]
    energy = box_mean(images.square().mean(dim=1), PATCH)
    distance = torch.empty(len(SHIFTS), count, len(here), device=fixed.device)
    for number, offset in enumerate(_offsets(energy.shape[1:])):
        product = _shifted(images, SHIFTS[number], fixed.shape[1:]) * fixed
        product = product[:, 0] if channels == 1 else product.mean(dim=1)
        sums = box_sum(product, PATCH).flatten(1).index_select(1, here)
        torch.index_select(energy.flatten(1), 1, there + offset, out=distance[number])
        distance[number].sub_(sums, alpha=2 / (2 * PATCH + 1) ** 3)
    return distance


def _extremes_around(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest and highest value of labels ``(V, D, H, W)`` in each voxel's search neighborhood."""
    lowest, highest = labels.amin(dim=0), labels.amax(dim=0)
    for axis in range(3):
        lowest = lowest.unfold(axis, 2 * SEARCH + 1, 1).amin(dim=-1)
        highest = highest.unfold(axis, 2 * SEARCH + 1, 1).amax(dim=-1)
    return lowest, highest


def _looked_at(unsure: Tensor) -> Tensor:
    """Numbers of the voxels to look at: those set, or all on a GPU, which else is waited for."""
    if unsure.device.type == "cpu":
        return unsure.flatten().nonzero()[:, 0]
    return torch.arange(unsure.numel(), device=unsure.device)


def _renumbered(numbers: Tensor, size: Sequence[int], larger: Sequence[int]) -> Tensor:
    """Numbers of the same voxels, from the same corner on, in a larger array."""
    row, x = numbers // size[2], numbers % size[2]
    z, y = row // size[1], row % size[1]
    return (z * larger[1] + y) * larger[2] + x


def _offsets(size: Sequence[int]) -> list[int]:
    """What each shift adds to a voxel's number in an array of that size."""
    return [(z * size[1] + y) * size[2] + x for z, y, x in SHIFTS]


def _part(volume: Volume, box: Sequence[slice], margin: int) -> Tensor:
    """The box of ``(C, D, H, W)`` with a margin; outside the scan its nearest voxel is repeated."""
    for axis, inside in enumerate(box, start=1):
        first, stop, last = inside.start - margin, inside.stop + margin, volume.shape[axis] - 1
        if isinstance(volume, Tensor):
            rows = torch.arange(first, stop, device=volume.device).clamp_(0, last)
            volume = volume.index_select(axis, rows)
        else:
            volume = volume.take(np.arange(first, stop).clip(0, last), axis=axis)
    return volume if isinstance(volume, Tensor) else torch.from_numpy(volume)


def _shifted(array: Tensor, shift: Sequence[int], shape: Sequence[int]) -> Tensor:
    """View of ``(..., D, H, W)`` of another size, from a corner on."""
    for axis, (start, length) in enumerate(zip(shift, shape, strict=True), start=-3):
        array = array.narrow(axis, start, length)
    return array
