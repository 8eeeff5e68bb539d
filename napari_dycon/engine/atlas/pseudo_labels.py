"""Unlabeled scans as training cases where labels deformed into them agree.

Labeled scans that were deformed into one unlabeled scan (see ``warps.py``) say together what is
what in it (multi-atlas segmentation, fused by ``fusion.py``). Where they agree, the unlabeled scan
itself becomes a training case, with its own appearance; the rest of it counts as not annotated.
Votes err independently of the networks; what the networks predict themselves was tried in their
place and confirms the networks' errors. No label of an unlabeled case is involved.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_dycon.core.boxes import bounding_box
from napari_dycon.core.types import UNANNOTATED, Array, LabelArray
from napari_dycon.engine.atlas.label_fusion import CPU, fuse_labels, label_values
from napari_dycon.engine.atlas.registered_cases import RegistrationPair
from napari_dycon.engine.atlas.registration import registration_shape
from napari_dycon.engine.data.cases import LabeledCase
from napari_dycon.engine.data.preprocessing import read_image_array, read_label_array, save_array
from napari_dycon.engine.device import choose_sampling_device

MAX_ATLASES = 4  # of one scan at most
# Registration is as exact as its grid: a structure has to be large on it for votes to know more
# than networks find alone. Measured: 1,050 cells (left atrium) gain much, 300 (hippocampus) lose.
MIN_STRUCTURE_VOXELS = 600
MIN_PAIRWISE_DICE = 0.4  # between the voters; tumors that lie anywhere do not reach it
MIN_CONSENSUS = 0.7  # share of what the voters say that a voxel's value needs
MIN_CONTRAST = 0.3  # deviations by which the structure of a single voter has to stand out
MIN_CONTRAST_RATIO = 0.4  # share of that contrast which what it votes for needs
KEPT_FRACTION = 2 / 3  # share of the votes that is learned from
CONTRAST_RING_VOXELS = 4  # voxels around a structure that count as its surroundings

LabelArrays = Sequence[LabelArray]


def can_propagate_labels(labeled: Sequence[LabeledCase]) -> bool:
    """Whether every structure is large on the registration's grid, and seen by a single voter.

    A structure has to fill ``MIN_FEATURE_SIDE`` of the grid, on average over the cases. In a case
    that
    is annotated in part, what is annotated within the structure's box stands for all of the box.
    """
    sizes: dict[int, list[float]] = {}
    for case in labeled:
        label = read_label_array(case.label, mapped=False)
        grid_ratio = math.prod(registration_shape([label.shape])) / label.size
        for value in _find_structures([label]):
            box = label[bounding_box(label == value)]
            fraction = np.count_nonzero(box == value) / np.count_nonzero(box != UNANNOTATED)
            sizes.setdefault(value, []).append(fraction * box.size * grid_ratio)
    if not sizes or any(np.mean(cells) < MIN_STRUCTURE_VOXELS for cells in sizes.values()):
        return False
    if len(labeled) > 1:
        return True
    image = read_image_array(labeled[0].image)
    return all(
        np.abs(_compute_contrast(image, label, value)).max() >= MIN_CONTRAST for value in sizes
    )


def group_by_target(
    pairs: Sequence[RegistrationPair], n_atlases: int
) -> list[list[RegistrationPair]]:
    """Pairs that vote on each unlabeled scan; scans with fewer pairs are left out."""
    groups: dict[str, list[RegistrationPair]] = {}
    for pair in pairs:
        groups.setdefault(pair.unlabeled.id, []).append(pair)
    return [group[:n_atlases] for group in groups.values() if len(group) >= n_atlases]


class PseudoLabel(NamedTuple):
    """A scan to learn from, and how much is open: unsure voxels a voxel of the structures."""

    case: LabeledCase
    undecided_ratio: float


def fuse_pseudo_label(
    group: Sequence[RegistrationPair],
    path: Path,
    should_stop: Callable[[], bool],
    device: torch.device = CPU,
) -> PseudoLabel | None:
    """Write what the labels deformed into a scan agree on; ``None`` where they do not.

    Parameters
    ----------
    group : the voters of one scan, whose files are there
    path : where the label is written
    enough : asked now and then; when it answers yes, there is no vote
    device : where labels are fused
    """
    scan = group[0].unlabeled
    labels = [read_label_array(pair.registered.label, mapped=False) for pair in group]
    if not atlases_agree(labels):
        return None
    image, *images = (
        read_image_array(place)
        for place in (scan.image, *(pair.registered.image for pair in group))
    )
    min_atlases = len(labels) // 2 + 1
    fused = fuse_labels(
        image,
        images,
        labels,
        min_consensus=MIN_CONSENSUS,
        min_atlases=min_atlases,
        should_stop=should_stop,
        device=choose_sampling_device(device),
    )
    if fused is None or len(set(np.unique(fused).tolist()) - {UNANNOTATED}) < 2:
        return None
    if len(group) == 1 and not has_matching_contrast(image, fused, images[0], labels[0]):
        return None
    save_array(path, fused)
    is_undecided = fused == UNANNOTATED
    undecided_ratio = float(is_undecided.sum()) / max(
        float((~is_undecided & (fused != 0)).sum()), 1.0
    )
    return PseudoLabel(LabeledCase(f"{scan.id}-pseudo", scan.image, path), undecided_ratio)


def select_most_confident(pseudo_labels: Mapping[int, PseudoLabel]) -> list[int]:
    """Numbers of the votes to learn from: those with the least doubt.

    Where registration failed, what the voters say differs from place to place. Measured: the rank
    correlation of doubt and Dice is -0.7 to -0.9 for four voters. For a single one it says less,
    and leaving scans out costs more than it brings.
    """
    order = sorted(
        pseudo_labels, key=lambda number: (pseudo_labels[number].undecided_ratio, number)
    )
    return sorted(order[: math.ceil(KEPT_FRACTION * len(order))])


def atlases_agree(
    labels: LabelArrays | Sequence[Tensor], min_dice: float = MIN_PAIRWISE_DICE
) -> bool:
    """Whether the voters overlap by ``least`` (Dice) on average, for every structure.

    Two voters are compared where both are annotated.
    """
    tensors = [torch.as_tensor(label) for label in labels]
    for value in _find_structures(tensors):
        overlaps = []
        for a, b in itertools.combinations(tensors, 2):
            is_annotated = (a != UNANNOTATED) & (b != UNANNOTATED)
            in_a, in_b = (a == value) & is_annotated, (b == value) & is_annotated
            if total := int(in_a.sum()) + int(in_b.sum()):
                overlaps.append(2 * int((in_a & in_b).sum()) / total)
        if overlaps and np.mean(overlaps) < min_dice:
            return False
    return True


def has_matching_contrast(
    image: Array, label: LabelArray, atlas_image: Array, atlas_label: LabelArray
) -> bool:
    """Whether every structure differs from its surroundings as it does in the only voter.

    A tumor that one person has would be voted into all others; there nothing stands out.

    Parameters
    ----------
    image, label : (C, D, H, W) and (D, H, W), the scan and what was voted
    other, drawn : the same of the voter
    """
    for value in _find_structures([atlas_label]):
        atlas_contrast, contrast = (
            _compute_contrast(atlas_image, atlas_label, value),
            _compute_contrast(image, label, value),
        )
        channel = int(np.argmax(np.abs(atlas_contrast)))
        if not contrast[channel] * np.sign(atlas_contrast[channel]) >= MIN_CONTRAST_RATIO * abs(
            atlas_contrast[channel]
        ):
            return False
    return True


def _find_structures(labels: LabelArrays | Sequence[Tensor]) -> list[int]:
    values = label_values([torch.as_tensor(label) for label in labels])
    return sorted(values - {0, UNANNOTATED})


def _compute_contrast(image: Array, label: LabelArray, value: int) -> npt.NDArray[np.float64]:
    """Mean of a structure less that of what is around it, in deviations of both, of each channel.

    0 where the structure, or anything annotated around it, is missing.
    """
    inside = label == value
    box = bounding_box(inside, CONTRAST_RING_VOXELS)
    if box is None:
        return np.zeros(len(image))
    inside, label = inside[box], label[box]
    dilated = torch.from_numpy(inside)[None, None].float()
    for size in (
        (2 * CONTRAST_RING_VOXELS + 1, 1, 1),
        (1, 2 * CONTRAST_RING_VOXELS + 1, 1),
        (1, 1, 2 * CONTRAST_RING_VOXELS + 1),
    ):
        dilated = F.max_pool3d(dilated, size, 1, [n // 2 for n in size])
    ring = (dilated[0, 0].numpy() > 0) & ~inside & (label != UNANNOTATED)
    if not ring.any():
        return np.zeros(len(image))
    contrasts = []
    for channel in image[(slice(None), *box)].astype(np.float64):
        deviation = max(float(channel[inside | ring].std()), 1e-6)
        contrasts.append(float(channel[inside].mean() - channel[ring].mean()) / deviation)
    return np.array(contrasts)
