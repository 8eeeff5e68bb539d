"""Patches of labeled and unlabeled cases; the honest setting made of types.

A step's batch is a pure function of the run's seed and the step's number, so that a resumed run
sees exactly what an uninterrupted one would have seen. An unlabeled case is a type without a
label: nothing downstream can read what it never carries. Patches keep their place in the volume.

A batch is made in two parts: ``StepBatches`` chooses cases and places and copies crops, larger than
a patch, as they are stored; ``CropBatch.augmented`` makes patches of them on the training device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.data.augmentation import (
    Augmentation,
    Shape,
    augment_patches,
    draw_augmentation,
    margin_size,
)
from napari_dycon.engine.data.preprocessing import read_label_array
from napari_dycon.engine.data.sampling import (
    ClassVoxels,
    clamp_center,
    crop,
    random_center,
    voxels_by_class,
)
from napari_dycon.engine.data.volumes import MappedVolumes, Volumes
from napari_dycon.engine.losses.segmentation import UNANNOTATED

LEFT_RIGHT = 2  # axis of canonical voxels (D, H, W)


@dataclass(frozen=True)
class UnlabeledCase:
    """A preprocessed scan: path of a float32 or float16 ``.npy``, ``(C, D, H, W)``."""

    id: str
    image: Path


@dataclass(frozen=True)
class LabeledCase:
    """A preprocessed scan with its label: paths of ``.npy`` files.

    The image is float32 or float16, ``(C, D, H, W)``; the label is uint8 ``(D, H, W)``, 255 where
    nobody annotated.
    """

    id: str
    image: Path
    label: Path


class LabeledBatch(NamedTuple):
    """``image (L, C, D, H, W)``, int64 ``label (L, D, H, W)``, ``position``, ``extent (L, 3)``."""

    image: Tensor
    label: Tensor
    position: Tensor
    extent: Tensor


class UnlabeledBatch(NamedTuple):
    """``image (U, C, D, H, W)``, ``position`` and ``extent (U, 3)``: there is no label to leak."""

    image: Tensor
    position: Tensor
    extent: Tensor


class Batch(NamedTuple):
    """What one step learns from.

    ``position`` is a patch's center along each axis of its volume, 0 to 1, and ``extent`` its size
    in the same unit, negative along an axis that was mirrored; small rotations and scalings of the
    augmentation are not part of them.
    """

    labeled: LabeledBatch
    unlabeled: UnlabeledBatch | None

    def to(self, device: torch.device) -> Batch:
        """Copy to a device."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        unlabeled = self.unlabeled and UnlabeledBatch(*map(moved, self.unlabeled))
        return Batch(LabeledBatch(*map(moved, self.labeled)), unlabeled)


class Crops(NamedTuple):
    """Regions of volumes of which patches are made.

    ``image (B, C, d, h, w)`` as it is stored, uint8 ``label (B, d, h, w)`` of labeled cases,
    ``position`` and ``extent (B, 3)`` as in a batch, and what is to be done to each patch.
    """

    image: Tensor
    label: Tensor | None
    position: Tensor
    extent: Tensor
    drawn: tuple[Augmentation, ...]

    def to(self, device: torch.device) -> Crops:
        """Copy to a device, without waiting for it."""
        image, position, extent = (
            tensor.to(device, non_blocking=True)
            for tensor in (self.image, self.position, self.extent)
        )
        label = None if self.label is None else self.label.to(device, non_blocking=True)
        return Crops(image, label, position, extent, self.drawn)


class CropBatch(NamedTuple):
    """What the patches of a step are made of, on the host or on the device that trains."""

    labeled: Crops
    unlabeled: Crops | None
    patch: Shape
    noise_seed: int

    def augmented(self, device: torch.device) -> Batch:
        """Make the batch, on a device."""
        generator = torch.Generator(device).manual_seed(self.noise_seed)

        def patches(crops: Crops) -> tuple[Tensor, Tensor | None]:
            if crops.drawn:
                return augment_patches(crops.image, crops.label, crops.drawn, self.patch, generator)
            label = crops.label
            return crops.image.float(), label if label is None else label.long()

        crops = self.labeled.to(device)
        image, label = patches(crops)
        assert label is not None
        labeled = LabeledBatch(image, label, crops.position, crops.extent)
        if self.unlabeled is None:
            return Batch(labeled, None)
        crops = self.unlabeled.to(device)
        image, _ = patches(crops)
        return Batch(labeled, UnlabeledBatch(image, crops.position, crops.extent))


class StepBatches:
    """Crops of the batches of a run, by the step's number.

    Parameters
    ----------
    labeled, unlabeled : the cases to draw from, each with equal chance
    config : whose patch is planned
    warped, voted : labeled cases in other shapes, see ``warps.py``, and unlabeled ones on which
        these agree, see ``votes.py``; shares of the patches come from them
    volumes : where the voxels are read from
    voxels : what is known already of the labels by path, see ``voxels_by_class``; added to
    """

    def __init__(
        self,
        labeled: Sequence[LabeledCase],
        unlabeled: Sequence[UnlabeledCase],
        config: TrainConfig,
        warped: Sequence[LabeledCase] = (),
        voted: Sequence[LabeledCase] = (),
        volumes: Volumes | None = None,
        voxels: dict[Path, list[ClassVoxels]] | None = None,
    ) -> None:
        self.labeled = list(labeled)
        self.warped, self.voted = list(warped), list(voted)
        own = len(self.labeled)
        self._warp_share = config.shape_share(own)
        self._vote_share = config.vote_share * min(1.0, len(self.voted) / (4 * own))
        self.unlabeled = list(unlabeled)
        self.config = config
        self._volumes = volumes or MappedVolumes()
        self._voxels = {} if voxels is None else voxels

    def __getitem__(self, step: int) -> CropBatch:
        rng = np.random.default_rng((self.config.seed, step))
        patch = self.config.patch
        assert patch is not None
        noise_seed = int(rng.integers(2**63))
        labeled = self._labeled_crops(rng, patch)
        unlabeled = None
        if self.unlabeled and self.config.unlabeled_batch:
            unlabeled = self._unlabeled_crops(rng, patch)
        return CropBatch(labeled, unlabeled, patch, noise_seed)

    def _labeled_crops(self, rng: np.random.Generator, patch: Shape) -> Crops:
        images, labels, centers = [], [], []
        for _ in range(self.config.labeled_batch):
            cases = self.labeled
            if self.voted and rng.random() < self._vote_share:
                cases = self.voted
            elif self.warped and rng.random() < self._warp_share:
                cases = self.warped
            case = cases[rng.integers(len(cases))]
            images.append(self._volumes.image(case.image))
            labels.append(self._volumes.label(case.label))
            centers.append(self._labeled_center(rng, case, labels[-1].shape, patch))
        return self._crops(rng, images, labels, centers, patch)

    def _unlabeled_crops(self, rng: np.random.Generator, patch: Shape) -> Crops:
        images, centers = [], []
        for _ in range(self.config.unlabeled_batch):
            case = self.unlabeled[rng.integers(len(self.unlabeled))]
            images.append(self._volumes.image(case.image))
            centers.append(random_center(rng, images[-1].shape[1:], patch))
        return self._crops(rng, images, [], centers, patch)

    def _labeled_center(
        self, rng: np.random.Generator, case: LabeledCase, shape: Sequence[int], patch: Shape
    ) -> tuple[int, ...]:
        if case.label not in self._voxels:
            self._voxels[case.label] = voxels_by_class(read_label_array(case.label))
        places = self._voxels[case.label]
        structures = [voxels for value, voxels in places if value > 0]
        sparse = bool(places) and any(value < 0 for value, _ in places)
        if structures and rng.random() < self.config.foreground_share:
            voxels = structures[rng.integers(len(structures))]
        elif sparse:  # a random place would often hold no annotation at all
            voxels = places[rng.integers(len(places))][1]
        else:
            return random_center(rng, shape, patch)
        voxel = voxels[rng.integers(len(voxels))]
        jitter = [rng.integers(-(p // 4), p // 4 + 1) for p in patch]
        return clamp_center(voxel + np.array(jitter), shape, patch)

    def _crops(
        self,
        rng: np.random.Generator,
        images: Sequence[Any],
        labels: Sequence[Any],
        centers: Sequence[Sequence[int]],
        patch: Shape,
    ) -> Crops:
        """Copy the crops out of their volumes, each into its part of one tensor."""
        count, size, config = len(images), margin_size(patch, self.config), self.config
        empty = self._volumes.empty
        half = all(image.itemsize == 2 for image in images)
        dtype = torch.float16 if half else torch.float32
        image = empty((count, images[0].shape[0], *size), dtype)
        for out, volume, center in zip(image, images, centers, strict=True):
            crop(volume, center, self._volumes.view(out), fill=None)
        label = empty((count, *size), torch.uint8) if labels else None
        for number, volume in enumerate(labels):
            assert label is not None
            out = self._volumes.view(label[number : number + 1])
            crop(volume[None], centers[number], out, fill=UNANNOTATED)
        drawn = tuple(draw_augmentation(rng, config) for _ in images) if config.augment else ()
        shapes = np.array([volume.shape[1:] for volume in images], np.float32)
        extents = np.array(patch, np.float32) / shapes
        for extent, each in zip(extents, drawn, strict=bool(drawn)):
            extent[LEFT_RIGHT] *= -1 if each.mirrored else 1
        position, extent = (
            self._volumes.host_tensor(values)
            for values in (np.array(centers, np.float32) / shapes, extents)
        )
        return Crops(image, label, position, extent, drawn)
