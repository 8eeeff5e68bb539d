"""Unlabelled scans as training cases where deformed labels agree, and later the networks with them.

Where several labelled scans were deformed into one unlabelled scan (see ``warps.py``), their labels
vote on what is what in it (multi-atlas segmentation). Where most agree, the unlabelled scan itself
becomes a training case, with its own appearance; the rest of it counts as not annotated. Votes know
where organs lie and networks where edges are, so that both together are right more often than
either: once the networks have learnt something, they refine the votes. No label of an unlabelled
case is involved.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from napari_dycon.engine.checkpoint import Model
from napari_dycon.engine.events import Event
from napari_dycon.engine.losses import UNANNOTATED
from napari_dycon.engine.patches import LabelledCase
from napari_dycon.engine.predict import QUICK_OVERLAP, member_probabilities
from napari_dycon.engine.preprocess import save_array
from napari_dycon.engine.warps import Pair

LEAST_VOTERS = 3  # fewer are no majority
LEAST_DICE = 0.4  # between the voters; tumours that lie anywhere do not reach it
AGREEMENT = 0.7  # share of the voters that has to agree on a voxel
CONFIDENCE = 0.6  # of networks and votes together, below which nothing is said
DOUBT = 0.05  # probability left to what nobody voted for

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
        case = _case(group, folder, "voted")
        if not case.label.exists():
            save_array(case.label, majority(_labels(group)))
        cases.append(case)
    return cases


def refine(
    groups: Sequence[Group],
    folder: Path,
    model: Model,
    device: torch.device,
    dtype: torch.dtype,
) -> Iterator[Event]:
    """Write what networks and votes say together, for the same scans; yields an event a scan."""
    for number, group in enumerate(groups, start=1):
        case = _case(group, folder, "refined")
        if not case.label.exists():
            image = torch.from_numpy(np.load(case.image))
            members = member_probabilities(model, image, device, dtype, overlap=QUICK_OVERLAP)
            seen = torch.stack(members).mean(dim=0).numpy()
            save_array(case.label, agreed(seen, shares(_labels(group), len(seen))))
        yield {"event": "votes", "done": number, "total": len(groups)}


def refined(groups: Sequence[Group], folder: Path) -> list[LabelledCase]:
    """Return the cases that ``refine`` has written."""
    return [_case(group, folder, "refined") for group in groups]


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


def shares(labels: Labels, classes: int) -> npt.NDArray[np.float32]:
    """Share of the votes that each class has, ``(classes, D, H, W)``; even where nobody votes."""
    votes = np.stack([np.sum([label == c for label in labels], axis=0) for c in range(classes)])
    total = votes.sum(axis=0)
    even = np.full(votes.shape, 1.0 / classes, np.float32)
    return np.where(total > 0, votes / np.maximum(total, 1), even).astype(np.float32)


def agreed(
    probabilities: npt.NDArray[np.float32], votes: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    """Class of the largest product of both, 255 where it is below ``CONFIDENCE``.

    Parameters
    ----------
    probabilities, votes : (classes, D, H, W)
    """
    product = np.maximum(probabilities, 1e-4) * np.maximum(votes, DOUBT)
    product /= product.sum(axis=0)
    found: npt.NDArray[np.uint8] = product.argmax(axis=0).astype(np.uint8)
    found[product.max(axis=0) < CONFIDENCE] = UNANNOTATED
    return found


def _case(group: Group, folder: Path, kind: str) -> LabelledCase:
    scan = group[0].unlabelled
    return LabelledCase(scan.id, scan.image, folder / f"{scan.id}.{kind}.npy")


def _labels(group: Group) -> list[npt.NDArray[np.uint8]]:
    return [np.load(pair.warped.label) for pair in group]
