"""Labeled scans in the shapes of unlabeled ones: training cases that nobody had to draw.

A labeled scan is deformed into the shape of an unlabeled one (see ``registration.py``) together
with its label. The two stay in register whatever the quality of the deformation, so that labels are
as right as they were, and the networks see how the organ varies from person to person instead of
what random rotations and scalings make up. The unlabeled scan gives its shape alone; no label of
it is read.
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

from napari_dycon.engine.atlas.registration import (
    Shape,
    register,
    registration_shape,
    sampling_grid,
    warp,
)
from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.data.cases import LabeledCase, UnlabeledCase
from napari_dycon.engine.data.preprocessing import read_image_array, read_label_array, save_array
from napari_dycon.engine.device import choose_sampling_device
from napari_dycon.project.runs.events import Event, RegistrationEvent

BATCH_SIZE = 8  # pairs registered together
MAX_DISK_BYTES = 2**32  # of all warped scans of a run on the disk


@dataclass(frozen=True)
class RegistrationPair:
    """A labeled scan, the unlabeled one whose shape it takes, and where the result lies."""

    labeled: LabeledCase
    unlabeled: UnlabeledCase
    registered: LabeledCase

    def is_on_disk(self) -> bool:
        """Whether the result lies on the disk."""
        return self.registered.image.exists() and self.registered.label.exists()


def plan_pairs(
    labeled: Sequence[LabeledCase],
    unlabeled: Sequence[UnlabeledCase],
    config: TrainConfig,
    folder: Path,
    n_atlases: int = 1,
) -> list[RegistrationPair]:
    """Up to ``config.warps`` pairs, the same for the same seed and cases.

    Unlabeled scans come in random order, and labeled ones take turns, so that all take part about
    equally. ``voters`` labeled scans are deformed into one unlabeled scan before the next.
    """
    order = np.random.default_rng(config.seed).permutation(len(unlabeled))
    count = len(labeled)
    pairs: list[RegistrationPair] = []
    for first in range(0, count, n_atlases):
        for position, number in enumerate(order):
            for offset in range(first, min(first + n_atlases, count)):
                source = labeled[(position * n_atlases + offset) % count]
                name = f"{len(pairs):04d}"
                case = LabeledCase(
                    f"{source.id}-as-{unlabeled[number].id}",
                    folder / f"{name}.image.npy",
                    folder / f"{name}.label.npy",
                )
                pairs.append(RegistrationPair(source, unlabeled[number], case))
    sizes = [np.prod(_read_shape(case.image)) for case in unlabeled]
    max_pairs = int(MAX_DISK_BYTES / (4 * max(float(np.mean(sizes)), 1.0))) if sizes else 0
    return pairs[
        : min(config.atlas.max_registration_pairs, max_pairs)
    ]  # bytes a voxel: image 2, label 1, its vote at most 1


def register_pairs(pairs: Sequence[RegistrationPair], device: torch.device) -> Iterator[Event]:
    """Register pairs and write the results; yields an event after each."""
    if not pairs:
        return
    device = choose_sampling_device(device)
    grid = registration_shape([_read_shape(p.unlabeled.image)[1:] for p in pairs])
    cache: dict[Path, Tensor] = {}

    def downsample(path: Path) -> Tensor:
        if path not in cache:
            cache[path] = resize_to_grid(read_image_array(path), grid)
        return cache[path].to(device)

    for start in range(0, len(pairs), BATCH_SIZE):
        group = pairs[start : start + BATCH_SIZE]
        moving = torch.stack([downsample(p.labeled.image) for p in group])
        fixed = torch.stack([downsample(p.unlabeled.image) for p in group])
        displacements = register(moving, fixed)
        for number, pair in enumerate(group):
            _write_pair(pair, displacements[number : number + 1])
            yield RegistrationEvent(done=start + number + 1, total=len(pairs))


def _write_pair(pair: RegistrationPair, displacement: Tensor) -> None:
    """Deform one scan and its label at full resolution."""
    image, label = warp_case(pair.labeled, displacement, _read_shape(pair.unlabeled.image)[1:])
    save_array(pair.registered.image, image.half().cpu().numpy())
    save_array(pair.registered.label, label.cpu().numpy())


def warp_case(
    case: LabeledCase, displacement: Tensor, shape: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """A labeled scan ``(C, D, H, W)`` and its label in another shape ``(D, H, W)``.

    Both are computed, and stay, where the displacement is.

    Parameters
    ----------
    displacement : (1, d, h, w, 3), of ``register``
    """
    field = sampling_grid(displacement, shape)
    image_voxels = torch.from_numpy(np.array(read_image_array(case.image))).to(field.device)
    label_voxels = torch.from_numpy(np.array(read_label_array(case.label))).to(field.device)
    image = warp(image_voxels[None].float(), field)[0]
    label = warp(label_voxels[None, None].float(), field, mode="nearest")[0, 0]
    return image, label.to(torch.uint8)


def _read_shape(path: Path) -> tuple[int, ...]:
    return read_image_array(path).shape


def resize_to_grid(
    image: npt.NDArray[Any], grid: Shape, device: torch.device | None = None
) -> Tensor:
    """``(C, D, H, W)`` averaged onto the canvas, each channel of mean 0 and deviation 1."""
    volume = torch.from_numpy(np.array(image, dtype=np.float32)).to(device or "cpu")
    volume = F.adaptive_avg_pool3d(volume[None], grid)[0]
    flat = volume.flatten(1)
    mean, deviation = flat.mean(dim=1), flat.std(dim=1).clamp(min=1e-6)
    return (volume - mean.view(-1, 1, 1, 1)) / deviation.view(-1, 1, 1, 1)
