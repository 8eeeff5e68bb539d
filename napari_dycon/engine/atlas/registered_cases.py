"""Registration-based augmentation: labeled scans registered to unlabeled ones.

A labeled scan and its label are warped by the same deformation field, estimated by registering the
scan to an unlabeled one (``registration.py``). Because both are warped identically, the label
remains valid even if the registration is inaccurate, and the networks see real variation of the
anatomy rather than random rotations and scalings. No label of the unlabeled scan is read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_dycon.engine.atlas.registration import (
    RegistrationStoppedError,
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
FIRST_BATCH_SIZE = 4  # as long as it is unknown how long a pair takes, if time is limited
MAX_DISK_BYTES = 2**32  # on disk, for all registered scans of a run


@dataclass(frozen=True)
class RegistrationPair:
    """A labeled scan, the unlabeled scan it is registered to, and the paths of the result."""

    labeled: LabeledCase
    unlabeled: UnlabeledCase
    registered: LabeledCase

    def is_on_disk(self) -> bool:
        """Whether the result exists on disk."""
        return self.registered.image.exists() and self.registered.label.exists()


def plan_pairs(
    labeled: Sequence[LabeledCase],
    unlabeled: Sequence[UnlabeledCase],
    config: TrainConfig,
    folder: Path,
    n_atlases: int = 1,
) -> list[RegistrationPair]:
    """Choose up to ``config.atlas.max_registration_pairs`` pairs; deterministic given the seed.

    Unlabeled scans are visited in random order and labeled ones in rotation, so that all are used
    about equally. ``n_atlases`` labeled scans are registered to each unlabeled scan.
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
    ]  # bytes per voxel: image 2, label 1, pseudo-label at most 1


def register_pairs(
    pairs: Sequence[RegistrationPair],
    device: torch.device,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    seconds_left: Callable[[], float] = lambda: math.inf,
) -> Iterator[Event]:
    """Register pairs and write the results; yields an event after each.

    Parameters
    ----------
    should_stop : called often; ends the registration, without the pairs that are not complete
    seconds_left : time for registration; no pairs are begun that are expected to take longer
    """
    if not pairs:
        return
    device = choose_sampling_device(device)
    grid = registration_shape([_read_shape(p.unlabeled.image)[1:] for p in pairs])
    cache: dict[Path, Tensor] = {}

    def downsample(path: Path) -> Tensor:
        if path not in cache:
            cache[path] = resize_to_grid(read_image_array(path), grid)
        return cache[path].to(device)

    done, pair_s = 0, 0.0
    while done < len(pairs):
        size = _choose_group_size(seconds_left(), pair_s)
        if not size:
            return
        begin = time.monotonic()
        group = pairs[done : done + size]
        moving = torch.stack([downsample(p.labeled.image) for p in group])
        fixed = torch.stack([downsample(p.unlabeled.image) for p in group])
        try:
            displacements = register(moving, fixed, should_stop=should_stop)
        except RegistrationStoppedError:
            return
        for number, pair in enumerate(group):
            _write_pair(pair, displacements[number : number + 1])
            yield RegistrationEvent(done=done + number + 1, total=len(pairs))
        done += len(group)
        pair_s = (time.monotonic() - begin) / len(group)


def _choose_group_size(seconds_left: float, pair_s: float) -> int:
    """Return how many pairs to register together; 0 if the time does not suffice for one."""
    if math.isinf(seconds_left):
        return BATCH_SIZE
    if seconds_left <= pair_s:
        return 0
    return min(int(seconds_left / pair_s), BATCH_SIZE) if pair_s else FIRST_BATCH_SIZE


def _write_pair(pair: RegistrationPair, displacement: Tensor) -> None:
    """Warp one scan and its label at full resolution and write them."""
    image, label = warp_case(pair.labeled, displacement, _read_shape(pair.unlabeled.image)[1:])
    save_array(pair.registered.image, image.half().cpu().numpy())
    save_array(pair.registered.label, label.cpu().numpy())


def warp_case(
    case: LabeledCase, displacement: Tensor, shape: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Warp a labeled scan ``(C, D, H, W)`` and its label to another shape ``(D, H, W)``.

    Both results are on the device of the displacement.

    Parameters
    ----------
    displacement : (1, d, h, w, 3), from ``register``
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
    """Average ``(C, D, H, W)`` onto a grid and standardize each channel."""
    volume = torch.from_numpy(np.array(image, dtype=np.float32)).to(device or "cpu")
    volume = F.adaptive_avg_pool3d(volume[None], grid)[0]
    flat = volume.flatten(1)
    mean, deviation = flat.mean(dim=1), flat.std(dim=1).clamp(min=1e-6)
    return (volume - mean.view(-1, 1, 1, 1)) / deviation.view(-1, 1, 1, 1)
