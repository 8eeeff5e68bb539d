"""Unlabelled scans as training cases where labels deformed into them agree.

Labelled scans that were deformed into one unlabelled scan (see ``warps.py``) say together what is
what in it (multi-atlas segmentation, fused by ``fusion.py``). Where they agree, the unlabelled scan
itself becomes a training case, with its own appearance; the rest of it counts as not annotated.
Votes err independently of the networks; what the networks predict themselves was tried in their
place and confirms the networks' errors. No label of an unlabelled case is involved.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from napari_dycon.engine.fusion import fuse
from napari_dycon.engine.losses import UNANNOTATED
from napari_dycon.engine.patches import LabelledCase
from napari_dycon.engine.preprocess import read_image_array, read_label_array, save_array
from napari_dycon.engine.registration import canvas_shape
from napari_dycon.engine.warps import Pair

VOTERS = 4  # of one scan at most
# Registration is as exact as its grid: a structure has to be large on it for votes to know more
# than networks find alone. Measured: 1,050 cells (left atrium) gain much, 300 (hippocampus) lose.
LEAST_CELLS = 600
LEAST_DICE = 0.4  # between the voters; tumours that lie anywhere do not reach it
AGREEMENT = 0.7  # share of what the voters say that a voxel's value needs
LEAST_CONTRAST = 0.3  # deviations by which the structure of a single voter has to stand out
LEAST_LIKENESS = 0.4  # share of that contrast which what it votes for needs
RING = 4  # voxels around a structure that count as its surroundings

Array = npt.NDArray[Any]
Label = npt.NDArray[np.uint8]
Labels = Sequence[Label]


def can_vote(labelled: Sequence[LabelledCase]) -> bool:
    """Whether every structure is large on the registration's grid.

    A structure has to fill ``LEAST_CELLS`` of it, on average over the cases;
    of a case that is annotated in part, the annotated part stands for the whole.
    """
    sizes: dict[int, list[float]] = {}
    for case in labelled:
        label = read_label_array(case.label, mapped=False)
        counts = np.bincount(label.reshape(-1), minlength=256)
        cells = math.prod(canvas_shape([label.shape])) / max(int(counts[:UNANNOTATED].sum()), 1)
        for value in np.flatnonzero(counts[1:UNANNOTATED]) + 1:
            sizes.setdefault(int(value), []).append(float(counts[value]) * cells)
    return bool(sizes) and all(np.mean(cells) >= LEAST_CELLS for cells in sizes.values())


def voters_of(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Pairs of each unlabelled scan, in the scans' order: its first ``VOTERS`` vote."""
    found: dict[str, list[Pair]] = {}
    for pair in pairs:
        found.setdefault(pair.unlabelled.id, []).append(pair)
    return [group[:VOTERS] for group in found.values()]


def vote(group: Sequence[Pair], path: Path) -> LabelledCase | None:
    """Write what the labels deformed into a scan agree on; ``None`` where they do not.

    Parameters
    ----------
    group : the voters of one scan, whose files are there
    path : where the label is written
    """
    scan = group[0].unlabelled
    if not path.exists():
        labels = [read_label_array(pair.warped.label, mapped=False) for pair in group]
        image, *images = (
            read_image_array(place)
            for place in (scan.image, *(pair.warped.image for pair in group))
        )
        agreed = np.full_like(labels[0], UNANNOTATED)
        if alike(labels):
            most = len(labels) // 2 + 1
            agreed = fuse(image, images, labels, agreement=AGREEMENT, voters=most)
        if len(labels) == 1 and not stands_out(image, agreed, images[0], labels[0]):
            agreed = np.full_like(agreed, UNANNOTATED)
        save_array(path, agreed)
    values = set(np.unique(read_label_array(path, mapped=False)).tolist()) - {UNANNOTATED}
    return LabelledCase(f"{scan.id}-voted", scan.image, path) if len(values) > 1 else None


def alike(labels: Labels) -> bool:
    """Whether the voters overlap by ``LEAST_DICE`` on average, for every structure.

    Two voters are compared where both are annotated.
    """
    structures = set(np.concatenate([np.unique(label) for label in labels]).tolist())
    for value in structures - {0, UNANNOTATED}:
        overlaps = []
        for a, b in itertools.combinations(labels, 2):
            known = (a != UNANNOTATED) & (b != UNANNOTATED)
            in_a, in_b = (a == value) & known, (b == value) & known
            total = int(in_a.sum()) + int(in_b.sum())
            overlaps.append(2 * int((in_a & in_b).sum()) / max(total, 1))
        if overlaps and np.mean(overlaps) < LEAST_DICE:
            return False
    return True


def stands_out(image: Array, label: Label, other: Array, drawn: Label) -> bool:
    """Whether every structure differs from its surroundings as it does in the only voter.

    A tumour that one person has would be voted into all others; there nothing stands out.

    Parameters
    ----------
    image, label : (C, D, H, W) and (D, H, W), the scan and what was voted
    other, drawn : the same of the voter
    """
    for value in set(np.unique(drawn).tolist()) - {0, UNANNOTATED}:
        wanted, found = (
            _contrast(other, drawn == value, drawn),
            _contrast(image, label == value, label),
        )
        channel = int(np.argmax(np.abs(wanted)))
        if not abs(wanted[channel]) >= LEAST_CONTRAST:
            return False
        if not found[channel] / wanted[channel] >= LEAST_LIKENESS:
            return False
    return True


def _contrast(image: Array, inside: npt.NDArray[np.bool_], label: Label) -> npt.NDArray[np.float64]:
    """Mean of a structure less that of the background around it, in deviations of the channel."""
    mask = torch.from_numpy(inside)[None, None].float()
    around = F.max_pool3d(mask, 2 * RING + 1, 1, RING)[0, 0].numpy().astype(bool) & (label == 0)
    if not inside.any() or not around.any():
        return np.zeros(len(image))
    found = [
        (float(channel[inside].mean()) - float(channel[around].mean()))
        / max(float(channel.std()), 1e-6)
        for channel in image.astype(np.float32)
    ]
    return np.array(found, dtype=np.float64)
