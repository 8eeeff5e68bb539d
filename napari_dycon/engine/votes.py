"""Unlabelled scans as training cases where labels deformed into them agree.

Where several labelled scans were deformed into one unlabelled scan (see ``warps.py``), their labels
vote on what is what in it (multi-atlas segmentation). Where most agree, the unlabelled scan itself
becomes a training case, with its own appearance; the rest of it counts as not annotated. Votes err
independently of the networks; what the networks predict themselves was tried in their place and
confirms the networks' errors. No label of an unlabelled case is involved.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_dycon.engine.losses import UNANNOTATED
from napari_dycon.engine.patches import LabelledCase
from napari_dycon.engine.preprocess import read_label_array, save_array
from napari_dycon.engine.registration import canvas_shape
from napari_dycon.engine.warps import Pair

VOTERS, LEAST_VOTERS = 4, 3  # of one scan; fewer are no majority
# Registration is as exact as its grid: a structure has to be large on it for votes to know more
# than networks find alone. Measured: 1,050 cells (left atrium) gain much, 300 (hippocampus) lose.
LEAST_CELLS = 600
LEAST_DICE = 0.4  # between the voters; tumours that lie anywhere do not reach it
AGREEMENT = 0.7  # share of the voters that has to agree on a voxel

Labels = Sequence[npt.NDArray[np.uint8]]


def can_vote(labelled: Sequence[LabelledCase]) -> bool:
    """Whether there are enough labelled cases, and every structure is large on the grid.

    A structure has to fill ``LEAST_CELLS`` of the registration's grid, on average over the cases;
    of a case that is annotated in part, the annotated part stands for the whole.
    """
    if len(labelled) < LEAST_VOTERS:
        return False
    sizes: dict[int, list[float]] = {}
    for case in labelled:
        label = read_label_array(case.label, mapped=False)
        counts = np.bincount(label.reshape(-1), minlength=256)
        cells = math.prod(canvas_shape([label.shape])) / max(int(counts[:UNANNOTATED].sum()), 1)
        for value in np.flatnonzero(counts[1:UNANNOTATED]) + 1:
            sizes.setdefault(int(value), []).append(float(counts[value]) * cells)
    return bool(sizes) and all(np.mean(cells) >= LEAST_CELLS for cells in sizes.values())


def vote(pairs: Sequence[Pair], folder: Path) -> list[LabelledCase]:
    """Write what the labels deformed into each scan agree on; scans without agreement are left out.

    Parameters
    ----------
    pairs : those whose files are there; the first ``VOTERS`` of a scan vote
    folder : where the labels are written
    """
    found: dict[str, list[Pair]] = {}
    for pair in pairs:
        found.setdefault(pair.unlabelled.id, []).append(pair)
    cases = []
    for number, group in enumerate(found.values()):
        if len(group) < LEAST_VOTERS:
            continue
        scan = group[0].unlabelled
        case = LabelledCase(f"{scan.id}-voted", scan.image, folder / f"{number:04d}.voted.npy")
        labels = [read_label_array(pair.warped.label, mapped=False) for pair in group[:VOTERS]]
        agreed = majority(labels) if alike(labels) else None
        if agreed is not None and len(set(np.unique(agreed)) - {UNANNOTATED}) > 1:
            save_array(case.label, agreed)
            cases.append(case)
    return cases


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
        if np.mean(overlaps) < LEAST_DICE:
            return False
    return True


def majority(labels: Labels) -> npt.NDArray[np.uint8]:
    """Value on which at least ``AGREEMENT`` of the labels agree, 255 elsewhere.

    A label abstains where it is not annotated itself; where fewer than ``LEAST_VOTERS`` are left,
    nothing is said.
    """
    known = np.zeros(labels[0].shape, np.uint8)
    for label in labels:
        known += label != UNANNOTATED
    result = np.full(known.shape, UNANNOTATED, np.uint8)
    structures = set(np.concatenate([np.unique(label) for label in labels]).tolist())
    for value in structures - {UNANNOTATED}:
        votes = np.zeros(known.shape, np.uint8)
        for label in labels:
            votes += label == value
        result[(votes >= np.float32(AGREEMENT) * known) & (known >= LEAST_VOTERS)] = value
    return result
