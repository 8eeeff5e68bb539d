"""Atlas pseudo-labels: multi-atlas segmentations of unlabeled scans as training cases.

Labels of the atlases registered to an unlabeled scan (``registered_cases.py``) are fused
(``label_fusion.py``). Voxels on which they agree become a pseudo-label of the unlabeled scan; all
others count as unannotated. Errors of atlases are independent of those of the networks, whereas
pseudo-labels predicted by the networks would confirm the networks' errors. No label of an unlabeled
case is read.
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

MAX_ATLASES = 4  # for one scan
# Registration is as exact as its grid: atlases add information to the networks only for structures
# that are large on it. Measured: 1,050 grid voxels (left atrium) gain much, 300 (hippocampus) lose.
MIN_STRUCTURE_VOXELS = 600
MIN_PAIRWISE_DICE = 0.4  # between atlases; tumors at arbitrary positions do not reach it
MIN_CONSENSUS = 0.7  # fraction of the weight that a voxel's value needs
MIN_CONTRAST = 0.3  # standard deviations; of the structure in a single atlas
MIN_CONTRAST_RATIO = 0.4  # of that contrast, required of the pseudo-label
KEPT_FRACTION = 2 / 3  # fraction of the pseudo-labels used for training
CONTRAST_RING_VOXELS = 4  # voxels around a structure that count as its surroundings

LabelArrays = Sequence[LabelArray]


def can_propagate_labels(labeled: Sequence[LabeledCase]) -> bool:
    """Check that every structure is large enough on the grid and has contrast if it has one atlas.

    A structure has to cover ``MIN_STRUCTURE_VOXELS`` of the grid, on average over the cases. Its
    size in a partly annotated case is extrapolated from the annotated part of its bounding box.
    """
    sizes: dict[int, list[float]] = {}
    for case in labeled:
        label = read_label_array(case.label, mapped=False)
        grid_ratio = math.prod(registration_shape([label.shape])) / label.size
        for value in _find_structures([label]):
            extent = bounding_box(label == value)
            assert extent is not None  # the value occurs in the label
            box = label[extent]
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
    """Group pairs by unlabeled scan; scans with fewer than ``n_atlases`` pairs are left out."""
    groups: dict[str, list[RegistrationPair]] = {}
    for pair in pairs:
        groups.setdefault(pair.unlabeled.id, []).append(pair)
    return [group[:n_atlases] for group in groups.values() if len(group) >= n_atlases]


class PseudoLabel(NamedTuple):
    """A pseudo-labeled case, and its number of undecided voxels per voxel of the structures."""

    case: LabeledCase
    undecided_ratio: float


def fuse_pseudo_label(
    group: Sequence[RegistrationPair],
    path: Path,
    should_stop: Callable[[], bool],
    device: torch.device = CPU,
) -> PseudoLabel | None:
    """Fuse and write the pseudo-label of a scan; ``None`` if its atlases do not agree.

    Parameters
    ----------
    group : registered pairs of one unlabeled scan, whose files exist
    path : where the label is written
    should_stop : polled periodically; returns ``None`` early when it returns true
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
    """Select the numbers of the pseudo-labels with the fewest undecided voxels.

    Where registration failed, the atlases disagree. Measured: the rank correlation of the undecided
    ratio and Dice is -0.7 to -0.9 with four atlases. With a single atlas it is weaker, and leaving
    scans out costs more than it gains.
    """
    order = sorted(
        pseudo_labels, key=lambda number: (pseudo_labels[number].undecided_ratio, number)
    )
    return sorted(order[: math.ceil(KEPT_FRACTION * len(order))])


def atlases_agree(
    labels: LabelArrays | Sequence[Tensor], min_dice: float = MIN_PAIRWISE_DICE
) -> bool:
    """Check that the mean pairwise Dice of the atlases is at least ``min_dice`` for each structure.

    Two atlases are compared where both are annotated.
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
    """Check that the contrast of every structure matches that of the single atlas.

    This prevents a lesion from being propagated to scans that do not contain one.

    Parameters
    ----------
    image, label : (C, D, H, W) and (D, H, W), the scan and its pseudo-label
    atlas_image, atlas_label : the same for the atlas
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
    """Compute a structure's mean less that of its surroundings, for each channel.

    In standard deviations of both together; 0 where the structure or annotated voxels around it
    are missing.
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
