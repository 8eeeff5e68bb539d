"""Labelled scans in the shapes of unlabelled ones: training cases that nobody had to draw.

A labelled scan is deformed into the shape of an unlabelled one (see ``registration.py``) together
with its label. The two stay in register whatever the quality of the deformation, so no wrong label
enters, and the networks see how the organ varies from person to person instead of what random
rotations and scalings make up. The unlabelled scan gives its shape alone; no label of it is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.events import Event
from napari_dycon.engine.losses import UNANNOTATED
from napari_dycon.engine.patches import LabelledCase, UnlabelledCase
from napari_dycon.engine.preprocess import save_array
from napari_dycon.engine.registration import (
    CANVAS_VOXELS,
    Shape,
    canvas_shape,
    register,
    resize_field,
    sample,
)

VOTERS = 4  # labelled scans deformed into one unlabelled scan, see votes.py
# Registration is as exact as its grid: a structure has to be large on it for votes to know more
# than networks find alone. Measured: 1,050 cells (left atrium) gain much, 300 (hippocampus) lose.
LEAST_CELLS = 600
AT_ONCE = 16  # pairs registered together
MOST_BYTES = 2**30  # of all warped scans of a run on the disk


@dataclass(frozen=True)
class Pair:
    """A labelled scan, the unlabelled one whose shape it takes, and where the result lies."""

    labelled: LabelledCase
    unlabelled: UnlabelledCase
    warped: LabelledCase


def plan_warps(
    labelled: Sequence[LabelledCase],
    unlabelled: Sequence[UnlabelledCase],
    config: TrainConfig,
    folder: Path,
) -> list[Pair]:
    """Up to ``config.warps`` pairs, the same for the same seed and cases.

    Unlabelled scans come in random order, and labelled ones take turns, so that all take part about
    equally. Where votes are worth while, ``VOTERS`` labelled scans are deformed into one unlabelled
    scan before the next; else every scan lends its shape before one does twice.
    """
    order = np.random.default_rng(config.seed).permutation(len(unlabelled))
    count = len(labelled)
    voters = min(VOTERS, count) if config.vote_share and large(labelled) else 1
    pairs = []
    for begin in range(0, count, voters):
        for place, number in enumerate(order):
            for turn in range(begin, min(begin + voters, count)):
                source = labelled[(place * voters + turn) % count]
                target = unlabelled[number]
                id_ = f"{source.id}-as-{target.id}"
                warped = LabelledCase(id_, folder / f"{id_}.image.npy", folder / f"{id_}.label.npy")
                pairs.append(Pair(source, target, warped))
    voxels = np.mean([np.prod(_shape(case.image)) for case in unlabelled]) if unlabelled else 0
    most = int(MOST_BYTES / max(3 * float(voxels), 1.0))  # float16 images and uint8 labels
    return pairs[: min(config.warps, most)]


def large(labelled: Sequence[LabelledCase]) -> bool:
    """Whether every structure fills ``LEAST_CELLS`` of the registration's grid on average."""
    sizes: dict[int, list[float]] = {}
    for case in labelled:
        label = np.load(case.label)
        values, counts = np.unique(label, return_counts=True)
        annotated = max(int(counts[values != UNANNOTATED].sum()), 1)
        for value, voxels in zip(values.tolist(), counts.tolist(), strict=True):
            sizes.setdefault(value, []).append(voxels * CANVAS_VOXELS / annotated)
    structures = set(sizes) - {0, UNANNOTATED}
    return all(np.mean(sizes[value]) >= LEAST_CELLS for value in structures)


def finished_warps(pairs: Sequence[Pair]) -> list[Pair]:
    """Those whose files lie on the disk."""
    return [p for p in pairs if p.warped.image.exists() and p.warped.label.exists()]


def make_warps(pairs: Sequence[Pair], device: torch.device) -> Iterator[Event]:
    """Register and write what is missing; yields an event after every few pairs."""
    canvas = canvas_shape([_shape(p.unlabelled.image)[1:] for p in pairs])
    seen: dict[Path, Tensor] = {}

    def small(path: Path) -> Tensor:
        if path not in seen:
            seen[path] = _on_canvas(np.load(path, mmap_mode="r"), canvas)
        return seen[path].to(device)

    for start in range(0, len(pairs), AT_ONCE):
        group = pairs[start : start + AT_ONCE]
        if len(finished_warps(group)) < len(group):
            moving = torch.stack([small(p.labelled.image) for p in group])
            fixed = torch.stack([small(p.unlabelled.image) for p in group])
            for pair, field in zip(group, register(moving, fixed), strict=True):
                _write(pair, field[None].cpu())
        yield {"event": "warps", "done": min(start + AT_ONCE, len(pairs)), "total": len(pairs)}


def _write(pair: Pair, field: Tensor) -> None:
    """Deform one scan and its label at full resolution."""
    shape = _shape(pair.unlabelled.image)[1:]
    full = resize_field(field, shape)
    image = torch.from_numpy(np.load(pair.labelled.image).astype(np.float32))[None]
    label = torch.from_numpy(np.load(pair.labelled.label).astype(np.float32))[None, None]
    save_array(pair.warped.image, sample(image, full)[0].numpy().astype(np.float16))
    values = sample(label, full, mode="nearest")[0, 0].numpy().astype(np.uint8)
    save_array(pair.warped.label, values)


def _shape(path: Path) -> tuple[int, ...]:
    return tuple(np.load(path, mmap_mode="r").shape)


def _on_canvas(image: npt.NDArray[Any], canvas: Shape) -> Tensor:
    """``(C, D, H, W)`` averaged onto the canvas, each channel of mean 0 and deviation 1."""
    volume = torch.from_numpy(np.array(image, dtype=np.float32))
    volume = F.adaptive_avg_pool3d(volume[None], canvas)[0]
    flat = volume.flatten(1)
    mean, deviation = flat.mean(dim=1), flat.std(dim=1).clamp(min=1e-6)
    return (volume - mean.view(-1, 1, 1, 1)) / deviation.view(-1, 1, 1, 1)
