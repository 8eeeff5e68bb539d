"""Patches of labelled and unlabelled cases, augmented; the honest setting made of types.

A step's batch is a pure function of the run's seed and the step's number, so that a resumed run
sees exactly what an uninterrupted one would have seen. An unlabelled case is a type without a
label: nothing downstream can read what it never carries. Patches keep their place in the volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandSimulateLowResolutiond,
)
from torch import Tensor
from torch.utils.data import Dataset

from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.losses import UNANNOTATED
from napari_dycon.engine.preprocess import read_image_array, read_label_array

Array = npt.NDArray[Any]

LEFT_RIGHT = 2  # axis of canonical voxels (D, H, W)


@dataclass(frozen=True)
class UnlabelledCase:
    """A preprocessed scan: path of a float32 ``.npy``, ``(C, D, H, W)``, memory-mapped."""

    id: str
    image: Path


@dataclass(frozen=True)
class LabelledCase:
    """A preprocessed scan with its label: paths of ``.npy`` files.

    The image is float32 or float16, ``(C, D, H, W)``; the label is uint8 ``(D, H, W)``, 255 where
    nobody annotated.
    """

    id: str
    image: Path
    label: Path


class LabelledBatch(NamedTuple):
    """``image (L, C, D, H, W)``, int64 ``label (L, D, H, W)``, ``position``, ``extent (L, 3)``."""

    image: Tensor
    label: Tensor
    position: Tensor
    extent: Tensor


class UnlabelledBatch(NamedTuple):
    """``image (U, C, D, H, W)``, ``position`` and ``extent (U, 3)``: there is no label to leak."""

    image: Tensor
    position: Tensor
    extent: Tensor


class Batch(NamedTuple):
    """What one step learns from.

    ``position`` is a patch's centre along each axis of its volume, 0 to 1, and ``extent`` its size
    in the same unit, negative along an axis that was mirrored; small rotations and scalings of the
    augmentation are not part of them.
    """

    labelled: LabelledBatch
    unlabelled: UnlabelledBatch | None

    def to(self, device: torch.device) -> Batch:
        """Copy to a device."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        unlabelled = self.unlabelled and UnlabelledBatch(*map(moved, self.unlabelled))
        return Batch(LabelledBatch(*map(moved, self.labelled)), unlabelled)


class StepBatches(Dataset[Batch]):
    """Map-style data set whose index is the step's number.

    Parameters
    ----------
    labelled, unlabelled : the cases to draw from, each with equal chance
    warped, voted : labelled cases in other shapes, see ``warps.py``, and unlabelled ones on which
        these agree, see ``votes.py``; shares of the patches come from them
    patch : (D, H, W) voxels
    """

    def __init__(
        self,
        labelled: Sequence[LabelledCase],
        unlabelled: Sequence[UnlabelledCase],
        config: TrainConfig,
        patch: tuple[int, int, int],
        warped: Sequence[LabelledCase] = (),
        voted: Sequence[LabelledCase] = (),
    ) -> None:
        self.labelled = list(labelled)
        self.warped, self.voted = list(warped), list(voted)
        own = len(self.labelled)
        self._warp_share = config.shape_share(own)
        self._vote_share = config.vote_share * min(1.0, len(self.voted) / (4 * own))
        self.unlabelled = list(unlabelled)
        self.config = config
        self.patch = patch
        self._places: dict[Path, list[tuple[int, Array]]] = {}
        self._transforms: dict[tuple[str, ...], Compose] = {
            keys: augmentation(config, patch, keys) for keys in (("image", "label"), ("image",))
        }

    def __len__(self) -> int:
        return 2**31

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng((self.config.seed, step))
        labelled = [self._labelled_patch(rng) for _ in range(self.config.labelled_batch)]
        unlabelled = None
        if self.unlabelled and self.config.unlabelled_batch:
            drawn = [self._unlabelled_patch(rng) for _ in range(self.config.unlabelled_batch)]
            unlabelled = UnlabelledBatch(*map(torch.stack, zip(*drawn, strict=True)))
        return Batch(LabelledBatch(*map(torch.stack, zip(*labelled, strict=True))), unlabelled)

    def _labelled_patch(self, rng: np.random.Generator) -> tuple[Tensor, ...]:
        cases = self.labelled
        if self.voted and rng.random() < self._vote_share:
            cases = self.voted
        elif self.warped and rng.random() < self._warp_share:
            cases = self.warped
        case = cases[rng.integers(len(cases))]
        image = read_image_array(case.image)
        label = read_label_array(case.label)
        centre = self._labelled_centre(rng, case, label)
        data = {
            "image": crop(image, centre, self._margin_size(), fill=None).astype(np.float32),
            "label": crop(label[None], centre, self._margin_size(), fill=UNANNOTATED),
        }
        tensors, mirrored = self._augment(data, rng)
        place = self._place(centre, label.shape, mirrored)
        return tensors["image"], tensors["label"][0].long(), *place

    def _unlabelled_patch(self, rng: np.random.Generator) -> tuple[Tensor, ...]:
        case = self.unlabelled[rng.integers(len(self.unlabelled))]
        image = read_image_array(case.image)
        shape = image.shape[1:]
        centre = random_centre(rng, shape, self.patch)
        data = {"image": crop(image, centre, self._margin_size(), fill=None)}
        tensors, mirrored = self._augment(data, rng)
        return tensors["image"], *self._place(centre, shape, mirrored)

    def _labelled_centre(
        self, rng: np.random.Generator, case: LabelledCase, label: Array
    ) -> tuple[int, ...]:
        if case.label not in self._places:
            self._places[case.label] = annotated_places(label)
        places = self._places[case.label]
        structures = [voxels for value, voxels in places if value > 0]
        sparse = bool(places) and any(value < 0 for value, _ in places)
        if structures and rng.random() < self.config.foreground_share:
            voxels = structures[rng.integers(len(structures))]
        elif sparse:  # a random place would often hold no annotation at all
            voxels = places[rng.integers(len(places))][1]
        else:
            return random_centre(rng, label.shape, self.patch)
        voxel = voxels[rng.integers(len(voxels))]
        jitter = [rng.integers(-(p // 4), p // 4 + 1) for p in self.patch]
        return clamp_centre(voxel + np.array(jitter), label.shape, self.patch)

    def _place(
        self, centre: Sequence[int], shape: Sequence[int], mirrored: bool
    ) -> tuple[Tensor, Tensor]:
        """Position and extent of a patch in its volume."""
        size = torch.tensor(shape, dtype=torch.float32)
        extent = torch.tensor(self.patch) / size
        if mirrored:
            extent[LEFT_RIGHT] *= -1
        return torch.tensor(centre) / size, extent

    def _margin_size(self) -> tuple[int, ...]:
        """Voxels cropped before rotation and scaling, so that corners hold real anatomy."""
        if not self.config.augment:
            return self.patch
        grow = 1.0 + self.config.scale_range / 2 + self.config.rotate_degrees / 90
        return tuple(int(np.ceil(p * grow / 2)) * 2 for p in self.patch)

    def _augment(
        self, data: dict[str, Array], rng: np.random.Generator
    ) -> tuple[dict[str, Tensor], bool]:
        """Arrays as the networks see them, and whether left and right were exchanged."""
        mirrored = False
        if self.config.augment:
            transform = self._transforms[tuple(data)]
            transform.set_random_state(seed=int(rng.integers(2**32)))
            data = transform(data)
            mirrored = self.config.mirror and rng.random() < 0.5
        tensors = {key: torch.as_tensor(np.asarray(value)) for key, value in data.items()}
        if mirrored:
            tensors = {key: value.flip(LEFT_RIGHT + 1) for key, value in tensors.items()}
        return tensors, mirrored


def augmentation(
    config: TrainConfig, patch: tuple[int, int, int], keys: tuple[str, ...]
) -> Compose:
    """Rotation, scaling, blur, low resolution, noise, brightness and contrast.

    MONAI's transforms on arrays ``(C, D, H, W)``; the result has the patch's size. Labels are
    sampled with nearest neighbours.
    """
    angle = float(np.deg2rad(config.rotate_degrees))
    scale = config.scale_range
    modes = ["nearest" if key == "label" else "bilinear" for key in keys]
    steps: list[Any] = [
        RandAffined(
            keys,
            prob=1.0,
            spatial_size=patch,
            rotate_range=(angle,) * 3,
            scale_range=((-scale * 0.8, scale),) * 3,
            mode=modes,
            padding_mode="border",
        )
    ]
    steps += [
        RandGaussianSmoothd(
            "image", prob=0.2, sigma_x=(0.3, 1.0), sigma_y=(0.3, 1.0), sigma_z=(0.3, 1.0)
        ),
        RandSimulateLowResolutiond("image", prob=0.1, zoom_range=(0.6, 1.0)),
        RandGaussianNoised("image", prob=0.3, std=0.12),
        RandScaleIntensityd("image", prob=0.5, factors=0.25),
        RandAdjustContrastd("image", prob=0.4, gamma=(0.7, 1.5), retain_stats=True),
    ]
    return Compose(steps)


def annotated_places(label: Array, most: int = 5_000) -> list[tuple[int, Array]]:
    """Where each value of a label is: ``(value, voxels (n, 3))`` for every structure.

    When parts are not annotated, one more entry of value -1 lists annotated background.
    """
    rng = np.random.default_rng(0)
    values = [int(v) for v in np.unique(label)]
    wanted = [v for v in values if v not in (0, UNANNOTATED)]
    if UNANNOTATED in values and 0 in values:
        wanted.append(0)
    found = []
    for value in wanted:
        hits = np.flatnonzero(label == value)
        if len(hits) > most:
            hits = hits[rng.integers(len(hits), size=most)]
        voxels = np.stack(np.unravel_index(hits, label.shape), axis=-1)
        found.append((value or -1, voxels.astype(np.int16)))  # a run may hold hundreds of these
    return found


def random_centre(
    rng: np.random.Generator, shape: Sequence[int], patch: Sequence[int]
) -> tuple[int, ...]:
    """Centre of a patch that lies inside the volume, evenly distributed."""
    return tuple(
        int(rng.integers(p // 2, max(n - (p - p // 2), p // 2) + 1)) if n > p else n // 2
        for n, p in zip(shape, patch, strict=True)
    )


def clamp_centre(centre: Array, shape: Sequence[int], patch: Sequence[int]) -> tuple[int, ...]:
    """Nearest centre whose patch lies inside the volume (or is centred on a smaller one)."""
    return tuple(
        int(np.clip(c, p // 2, n - (p - p // 2))) if n > p else n // 2
        for c, n, p in zip(centre, shape, patch, strict=True)
    )


def crop(array: Array, centre: Sequence[int], size: Sequence[int], fill: int | None) -> Array:
    """Copy ``size`` voxels around ``centre`` out of ``(C, D, H, W)``.

    Outside the volume the nearest voxel is repeated, or ``fill`` is set.
    """
    starts = [c - s // 2 for c, s in zip(centre, size, strict=True)]
    shape = array.shape[1:]
    inside = tuple(
        slice(min(max(a, 0), n - 1), max(min(a + s, n), 1))
        for a, s, n in zip(starts, size, shape, strict=True)
    )
    part = np.asarray(array[(slice(None), *inside)])
    pad = [(0, 0)]
    for a, s, box in zip(starts, size, inside, strict=True):
        before = max(box.start - a, 0)
        pad.append((before, s - before - (box.stop - box.start)))
    if fill is None:
        return np.pad(part, pad, mode="edge")
    return np.pad(part, pad, mode="constant", constant_values=fill)
