"""Patches of labeled and unlabeled cases, with types that rule out label leakage.

A step's batch is a pure function of the run's seed and the step's number, so that a resumed run
sees the same batches as an uninterrupted one. The type of an unlabeled batch has no label, which
rules out label leakage downstream. Patches keep their position in the volume.

A batch is built in two stages: ``PatchBatchDataset`` chooses cases and positions and copies crops,
larger than a patch, in their stored type; ``CropBatch.augment`` turns them into patches on the
training device.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from napari_dycon.core.types import UNANNOTATED
from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.data.augmentation import (
    Augmentation,
    Shape,
    augment_patches,
    compute_crop_shape,
    draw_augmentation,
)
from napari_dycon.engine.data.cases import LabeledCase, UnlabeledCase
from napari_dycon.engine.data.preprocessing import read_label_array
from napari_dycon.engine.data.sampling import (
    ClassVoxels,
    clamp_center,
    crop,
    draw_center,
    voxels_by_class,
)
from napari_dycon.engine.data.volumes import MappedVolumes, Volumes

LEFT_RIGHT_AXIS = 2  # axis of canonical voxels (D, H, W)


class LabeledBatch(NamedTuple):
    """``image (L, C, D, H, W)``, int64 ``label (L, D, H, W)``, center and size ``(L, 3)``."""

    image: Tensor
    label: Tensor
    patch_center: Tensor
    patch_size: Tensor


class UnlabeledBatch(NamedTuple):
    """``image (U, C, D, H, W)``, ``patch_center`` and ``patch_size (U, 3)``, without a label."""

    image: Tensor
    patch_center: Tensor
    patch_size: Tensor


class Batch(NamedTuple):
    """Training data of one step.

    ``patch_center`` is a patch's center along each axis of its volume, 0 to 1, and ``patch_size``
    its size in the same unit, negative along a flipped axis. Rotations and scalings of the
    augmentation are not included.
    """

    labeled: LabeledBatch
    unlabeled: UnlabeledBatch | None

    def to(self, device: torch.device) -> Batch:
        """Copy to a device."""

        def to_device(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        unlabeled = self.unlabeled and UnlabeledBatch(*map(to_device, self.unlabeled))
        return Batch(LabeledBatch(*map(to_device, self.labeled)), unlabeled)


class Crops(NamedTuple):
    """Regions of volumes from which patches are sampled.

    ``image (B, C, d, h, w)`` in its stored type, uint8 ``label (B, d, h, w)`` of labeled cases,
    ``patch_center`` and ``patch_size (B, 3)`` as in a batch, and the augmentation of each patch.
    """

    image: Tensor
    label: Tensor | None
    patch_center: Tensor
    patch_size: Tensor
    augmentations: tuple[Augmentation, ...]

    def to(self, device: torch.device) -> Crops:
        """Copy to a device asynchronously."""
        image, patch_center, patch_size = (
            tensor.to(device, non_blocking=True)
            for tensor in (self.image, self.patch_center, self.patch_size)
        )
        label = None if self.label is None else self.label.to(device, non_blocking=True)
        return Crops(image, label, patch_center, patch_size, self.augmentations)


class CropBatch(NamedTuple):
    """Crops of the patches of a step, on the host or on the training device."""

    labeled: Crops
    unlabeled: Crops | None
    patch: Shape
    noise_seed: int

    def augment(self, device: torch.device) -> Batch:
        """Build the batch on a device."""
        generator = torch.Generator(device).manual_seed(self.noise_seed)

        def extract_patches(crops: Crops) -> tuple[Tensor, Tensor | None]:
            if crops.augmentations:
                return augment_patches(
                    crops.image, crops.label, crops.augmentations, self.patch, generator
                )
            label = crops.label
            return crops.image.float(), label if label is None else label.long()

        crops = self.labeled.to(device)
        image, label = extract_patches(crops)
        assert label is not None
        labeled = LabeledBatch(image, label, crops.patch_center, crops.patch_size)
        if self.unlabeled is None:
            return Batch(labeled, None)
        crops = self.unlabeled.to(device)
        image, _ = extract_patches(crops)
        return Batch(labeled, UnlabeledBatch(image, crops.patch_center, crops.patch_size))


class PatchBatchDataset:
    """Crops of the batches of a run, by the step's number.

    Parameters
    ----------
    labeled, unlabeled : cases to draw from with equal probability
    config : planned settings
    registered_cases, pseudo_labeled_cases : cases from registration and from label fusion
        (``engine/atlas``), from which fractions of the labeled patches are drawn
    volumes : source of the voxels
    class_voxels : cache of ``voxels_by_class`` by path of the label; extended in place
    """

    def __init__(
        self,
        labeled: Sequence[LabeledCase],
        unlabeled: Sequence[UnlabeledCase],
        config: TrainConfig,
        registered_cases: Sequence[LabeledCase] = (),
        pseudo_labeled_cases: Sequence[LabeledCase] = (),
        volumes: Volumes | None = None,
        class_voxels: dict[Path, list[ClassVoxels]] | None = None,
    ) -> None:
        self.labeled = list(labeled)
        self.registered_cases, self.pseudo_labeled_cases = (
            list(registered_cases),
            list(pseudo_labeled_cases),
        )
        n_labeled = len(self.labeled)
        self._registered_probability = config.atlas.registration_augmentation_probability(n_labeled)
        self._pseudo_labeled_probability = config.atlas.pseudo_label_fraction * min(
            1.0, len(self.pseudo_labeled_cases) / (4 * n_labeled)
        )
        self.unlabeled = list(unlabeled)
        self.config = config
        self._volumes = volumes or MappedVolumes()
        self._class_voxels = {} if class_voxels is None else class_voxels

    def __getitem__(self, step: int) -> CropBatch:
        rng = np.random.default_rng((self.config.seed, step))
        patch = self.config.batch.patch_size
        assert patch is not None
        noise_seed = int(rng.integers(2**63))
        labeled = self._read_labeled_crops(rng, patch)
        unlabeled = None
        if self.unlabeled and self.config.batch.unlabeled_size:
            unlabeled = self._read_unlabeled_crops(rng, patch)
        return CropBatch(labeled, unlabeled, patch, noise_seed)

    def _read_labeled_crops(self, rng: np.random.Generator, patch: Shape) -> Crops:
        images, labels, centers = [], [], []
        for _ in range(self.config.batch.labeled_size):
            cases = self.labeled
            if self.pseudo_labeled_cases and rng.random() < self._pseudo_labeled_probability:
                cases = self.pseudo_labeled_cases
            elif self.registered_cases and rng.random() < self._registered_probability:
                cases = self.registered_cases
            case = cases[rng.integers(len(cases))]
            images.append(self._volumes.image(case.image))
            labels.append(self._volumes.label(case.label))
            centers.append(self._draw_labeled_center(rng, case, labels[-1].shape, patch))
        return self._copy_crops(rng, images, labels, centers, patch)

    def _read_unlabeled_crops(self, rng: np.random.Generator, patch: Shape) -> Crops:
        images, centers = [], []
        for _ in range(self.config.batch.unlabeled_size):
            case = self.unlabeled[rng.integers(len(self.unlabeled))]
            images.append(self._volumes.image(case.image))
            centers.append(draw_center(rng, images[-1].shape[1:], patch))
        return self._copy_crops(rng, images, [], centers, patch)

    def _draw_labeled_center(
        self, rng: np.random.Generator, case: LabeledCase, shape: Sequence[int], patch: Shape
    ) -> tuple[int, ...]:
        if case.label not in self._class_voxels:
            self._class_voxels[case.label] = voxels_by_class(read_label_array(case.label))
        class_voxels = self._class_voxels[case.label]
        structures = [voxels for value, voxels in class_voxels if value > 0]
        is_sparse = bool(class_voxels) and any(value < 0 for value, _ in class_voxels)
        if structures and rng.random() < self.config.batch.foreground_fraction:
            voxels = structures[rng.integers(len(structures))]
        elif is_sparse:  # a random position would often have no annotation
            voxels = class_voxels[rng.integers(len(class_voxels))][1]
        else:
            return draw_center(rng, shape, patch)
        voxel = voxels[rng.integers(len(voxels))]
        jitter = [rng.integers(-(p // 4), p // 4 + 1) for p in patch]
        return clamp_center(voxel + np.array(jitter), shape, patch)

    def _copy_crops(
        self,
        rng: np.random.Generator,
        images: Sequence[Any],
        labels: Sequence[Any],
        centers: Sequence[Sequence[int]],
        patch: Shape,
    ) -> Crops:
        """Copy the crops from their volumes into one tensor."""
        count, size, config = len(images), compute_crop_shape(patch, self.config), self.config
        empty = self._volumes.empty
        is_float16 = all(image.itemsize == 2 for image in images)
        dtype = torch.float16 if is_float16 else torch.float32
        image = empty((count, images[0].shape[0], *size), dtype)
        for out, volume, center in zip(image, images, centers, strict=True):
            crop(volume, center, self._volumes.view(out), fill=None)
        label = empty((count, *size), torch.uint8) if labels else None
        for number, volume in enumerate(labels):
            assert label is not None
            out = self._volumes.view(label[number : number + 1])
            crop(volume[None], centers[number], out, fill=UNANNOTATED)
        augmentations = (
            tuple(draw_augmentation(rng, config) for _ in images)
            if config.augmentation.enabled
            else ()
        )
        shapes = np.array([volume.shape[1:] for volume in images], np.float32)
        patch_sizes = np.array(patch, np.float32) / shapes
        for patch_size, augmentation in zip(patch_sizes, augmentations, strict=bool(augmentations)):
            patch_size[LEFT_RIGHT_AXIS] *= -1 if augmentation.flip_left_right else 1
        patch_center, patch_size = (
            self._volumes.copy_to_tensor(values)
            for values in (np.array(centers, np.float32) / shapes, patch_sizes)
        )
        return Crops(image, label, patch_center, patch_size, augmentations)
