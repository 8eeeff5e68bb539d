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
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_dycon.engine.atlas.label_fusion import CPU, box_around, fuse, label_values
from napari_dycon.engine.atlas.registered_cases import Pair
from napari_dycon.engine.atlas.registration import canvas_shape
from napari_dycon.engine.data.patches import LabeledCase
from napari_dycon.engine.data.preprocessing import read_image_array, read_label_array, save_array
from napari_dycon.engine.device import sampling_device
from napari_dycon.engine.losses.segmentation import UNANNOTATED

VOTERS = 4  # of one scan at most
# Registration is as exact as its grid: a structure has to be large on it for votes to know more
# than networks find alone. Measured: 1,050 cells (left atrium) gain much, 300 (hippocampus) lose.
LEAST_CELLS = 600
LEAST_DICE = 0.4  # between the voters; tumors that lie anywhere do not reach it
AGREEMENT = 0.7  # share of what the voters say that a voxel's value needs
LEAST_CONTRAST = 0.3  # deviations by which the structure of a single voter has to stand out
LEAST_LIKENESS = 0.4  # share of that contrast which what it votes for needs
SUREST = 2 / 3  # share of the votes that is learned from
RING = 4  # voxels around a structure that count as its surroundings

Array = npt.NDArray[Any]
Label = npt.NDArray[np.uint8]
Labels = Sequence[Label]


def can_vote(labeled: Sequence[LabeledCase]) -> bool:
    """Whether every structure is large on the registration's grid, and seen by a single voter.

    A structure has to fill ``LEAST_CELLS`` of the grid, on average over the cases. In a case that
    is annotated in part, what is annotated within the structure's box stands for all of the box.
    """
    sizes: dict[int, list[float]] = {}
    for case in labeled:
        label = read_label_array(case.label, mapped=False)
        cells = math.prod(canvas_shape([label.shape])) / label.size
        for value in _structures([label]):
            box = label[box_around(label == value, 0)]
            share = np.count_nonzero(box == value) / np.count_nonzero(box != UNANNOTATED)
            sizes.setdefault(value, []).append(share * box.size * cells)
    if not sizes or any(np.mean(cells) < LEAST_CELLS for cells in sizes.values()):
        return False
    if len(labeled) > 1:
        return True
    image = read_image_array(labeled[0].image)
    return all(np.abs(_contrast(image, label, value)).max() >= LEAST_CONTRAST for value in sizes)


def voters_of(pairs: Sequence[Pair], voters: int) -> list[list[Pair]]:
    """Pairs that vote on each unlabeled scan; scans with fewer pairs are left out."""
    found: dict[str, list[Pair]] = {}
    for pair in pairs:
        found.setdefault(pair.unlabeled.id, []).append(pair)
    return [group[:voters] for group in found.values() if len(group) >= voters]


class Vote(NamedTuple):
    """A scan to learn from, and how much is open: unsure voxels a voxel of the structures."""

    case: LabeledCase
    doubt: float


def vote(
    group: Sequence[Pair],
    path: Path,
    enough: Callable[[], bool],
    device: torch.device = CPU,
) -> Vote | None:
    """Write what the labels deformed into a scan agree on; ``None`` where they do not.

    Parameters
    ----------
    group : the voters of one scan, whose files are there
    path : where the label is written
    enough : asked now and then; when it answers yes, there is no vote
    device : where labels are fused
    """
    scan = group[0].unlabeled
    labels = [read_label_array(pair.warped.label, mapped=False) for pair in group]
    if not alike(labels):
        return None
    image, *images = (
        read_image_array(place) for place in (scan.image, *(pair.warped.image for pair in group))
    )
    most = len(labels) // 2 + 1
    agreed = fuse(
        image,
        images,
        labels,
        agreement=AGREEMENT,
        voters=most,
        enough=enough,
        device=sampling_device(device),
    )
    if agreed is None or len(set(np.unique(agreed).tolist()) - {UNANNOTATED}) < 2:
        return None
    if len(group) == 1 and not stands_out(image, agreed, images[0], labels[0]):
        return None
    save_array(path, agreed)
    unsure = agreed == UNANNOTATED
    doubt = float(unsure.sum()) / max(float((~unsure & (agreed != 0)).sum()), 1.0)
    return Vote(LabeledCase(f"{scan.id}-voted", scan.image, path), doubt)


def surest(votes: Mapping[int, Vote]) -> list[int]:
    """Numbers of the votes to learn from: those with the least doubt.

    Where registration failed, what the voters say differs from place to place. Measured: the rank
    correlation of doubt and Dice is -0.7 to -0.9 for four voters. For a single one it says less,
    and leaving scans out costs more than it brings.
    """
    order = sorted(votes, key=lambda number: (votes[number].doubt, number))
    return sorted(order[: math.ceil(SUREST * len(order))])


def alike(labels: Labels | Sequence[Tensor], least: float = LEAST_DICE) -> bool:
    """Whether the voters overlap by ``least`` (Dice) on average, for every structure.

    Two voters are compared where both are annotated.
    """
    tensors = [torch.as_tensor(label) for label in labels]
    for value in _structures(tensors):
        overlaps = []
        for a, b in itertools.combinations(tensors, 2):
            known = (a != UNANNOTATED) & (b != UNANNOTATED)
            in_a, in_b = (a == value) & known, (b == value) & known
            if total := int(in_a.sum()) + int(in_b.sum()):
                overlaps.append(2 * int((in_a & in_b).sum()) / total)
        if overlaps and np.mean(overlaps) < least:
            return False
    return True


def stands_out(image: Array, label: Label, other: Array, drawn: Label) -> bool:
    """Whether every structure differs from its surroundings as it does in the only voter.

    A tumor that one person has would be voted into all others; there nothing stands out.

    Parameters
    ----------
    image, label : (C, D, H, W) and (D, H, W), the scan and what was voted
    other, drawn : the same of the voter
    """
    for value in _structures([drawn]):
        wanted, found = _contrast(other, drawn, value), _contrast(image, label, value)
        channel = int(np.argmax(np.abs(wanted)))
        if not found[channel] * np.sign(wanted[channel]) >= LEAST_LIKENESS * abs(wanted[channel]):
            return False
    return True


def _structures(labels: Labels | Sequence[Tensor]) -> list[int]:
    values = label_values([torch.as_tensor(label) for label in labels])
    return sorted(values - {0, UNANNOTATED})


def _contrast(image: Array, label: Label, value: int) -> npt.NDArray[np.float64]:
    """Mean of a structure less that of what is around it, in deviations of both, of each channel.

    0 where the structure, or anything annotated around it, is missing.
    """
    inside = label == value
    if not inside.any():
        return np.zeros(len(image))
    box = box_around(inside, RING)
    inside, label = inside[box], label[box]
    near = torch.from_numpy(inside)[None, None].float()
    for size in ((2 * RING + 1, 1, 1), (1, 2 * RING + 1, 1), (1, 1, 2 * RING + 1)):
        near = F.max_pool3d(near, size, 1, [n // 2 for n in size])
    around = (near[0, 0].numpy() > 0) & ~inside & (label != UNANNOTATED)
    if not around.any():
        return np.zeros(len(image))
    found = []
    for channel in image[(slice(None), *box)].astype(np.float64):
        spread = max(float(channel[inside | around].std()), 1e-6)
        found.append(float(channel[inside].mean() - channel[around].mean()) / spread)
    return np.array(found)
