"""Unlabelled scans as training cases where labels deformed into them agree.

Where several labelled scans were deformed into one unlabelled scan (see ``warps.py``), their labels
vote on what is what in it (multi-atlas segmentation). Where most agree, the unlabelled scan itself
becomes a training case, with its own appearance; the rest of it counts as not annotated. Votes err
independently of the networks; what the networks predict themselves was tried in their place and
confirms the networks' errors. No label of an unlabelled case is involved.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_dycon.engine.losses import UNANNOTATED
from napari_dycon.engine.patches import LabelledCase
from napari_dycon.engine.preprocess import save_array
from napari_dycon.engine.warps import Pair

LEAST_VOTERS = 3  # fewer are no majority
LEAST_DICE = 0.4  # between the voters; tumours that lie anywhere do not reach it
AGREEMENT = 0.7  # share of the voters that has to agree on a voxel

Group = list[Pair]  # all of one unlabelled scan
Labels = Sequence[npt.NDArray[np.uint8]]


def by_scan(pairs: Sequence[Pair]) -> list[Group]:
    """Pairs of each unlabelled scan that has ``LEAST_VOTERS`` of them that agree roughly."""
    found: dict[str, Group] = {}
    for pair in pairs:
        found.setdefault(pair.unlabelled.id, []).append(pair)
    enough = [group for group in found.values() if len(group) >= LEAST_VOTERS]
    return [group for group in enough if alike(_labels(group))]


def alike(labels: Labels) -> bool:
    """Whether the voters overlap by ``LEAST_DICE`` on average, for every structure."""
    structures = set(np.concatenate([np.unique(label) for label in labels]).tolist())
    for value in structures - {0, UNANNOTATED}:
        masks = [label == value for label in labels]
        overlaps = [
            2 * np.sum(a & b) / max(np.sum(a) + np.sum(b), 1)
            for a, b in itertools.combinations(masks, 2)
        ]
        if np.mean(overlaps) < LEAST_DICE:
            return False
    return True


def vote(groups: Sequence[Group], folder: Path) -> list[LabelledCase]:
    """Write what the deformed labels of each scan agree on into a folder."""
    cases = []
    for group in groups:
        scan = group[0].unlabelled
        case = LabelledCase(scan.id, scan.image, folder / f"{scan.id}.voted.npy")
        if not case.label.exists():
            save_array(case.label, majority(_labels(group)))
        cases.append(case)
    return cases


def majority(labels: Labels) -> npt.NDArray[np.uint8]:
    """Value on which at least ``AGREEMENT`` of the labels agree, 255 elsewhere.

    A label abstains where it is not annotated itself; where fewer than ``LEAST_VOTERS`` are left,
    nothing is said.
    """
    known = np.sum([label != UNANNOTATED for label in labels], axis=0)
    result = np.full(labels[0].shape, UNANNOTATED, np.uint8)
    for value in np.unique(np.concatenate([np.unique(label) for label in labels])):
        if value != UNANNOTATED:
            votes = np.sum([label == value for label in labels], axis=0)
            result[(votes >= AGREEMENT * known) & (known >= LEAST_VOTERS)] = value
    return result


def _labels(group: Group) -> list[npt.NDArray[np.uint8]]:
    return [np.load(pair.warped.label) for pair in group]
