"""Random rotation, scaling, blur, low resolution, noise, brightness and contrast of patches.

Crops are larger than a patch (see ``volumes.py``) and become patches on the training device. Random
parameters are drawn on the host (see ``draw_augmentation``), so that a transform is computed only
for the patches that need it and the host never waits for the device; voxel noise comes from a
generator on the device. The distribution is that of MONAI's
``RandAffined``, ``RandGaussianSmoothd``, ``RandSimulateLowResolutiond``, ``RandGaussianNoised``,
``RandScaleIntensityd`` and ``RandAdjustContrastd`` in this order, as verified by tests.

Shapes: crops ``(B, C, d, h, w)``, patches ``(B, C, D, H, W)`` around the same center.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_dycon.engine.config import TrainConfig

Shape = tuple[int, int, int]  # voxels (D, H, W)

BLUR_PROBABILITY, BLUR_SIGMA_VOXELS = 0.2, (0.3, 1.0)  # each axis independently
LOW_RESOLUTION_PROBABILITY, LOW_RESOLUTION_ZOOM_RANGE = 0.1, (0.6, 1.0)
NOISE_PROBABILITY, MAX_NOISE_STD = 0.3, 0.12
BRIGHTNESS_PROBABILITY, MAX_BRIGHTNESS = 0.5, 0.25
GAMMA_PROBABILITY, GAMMA_RANGE = 0.4, (0.7, 1.5)
BLUR_TRUNCATION = 4.0  # standard deviations
THIN_SIDE_VOXELS = 32  # patches with a thinner side are tilted less, by its ratio to the others
EPS = 1e-7


@dataclass(frozen=True)
class Augmentation:
    """Random augmentation of one patch; ``None`` for transforms that are not applied.

    Angles are radians about the axes D, H and W. A scale is the size of the region in the crop,
    relative to the patch, that becomes the patch: more than 1 makes things smaller.
    """

    angles: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scales: tuple[float, float, float] = (1.0, 1.0, 1.0)
    flip_left_right: bool = False  # flip left and right
    blur: tuple[float, float, float] | None = None  # sigma in voxels
    zoom: float | None = None  # of the lower resolution
    noise_std: float | None = None
    brightness: float | None = None  # intensities are multiplied by 1 + brightness
    gamma: float | None = None


def draw_augmentation(rng: np.random.Generator, config: TrainConfig) -> Augmentation:
    """Draw the random augmentation of a patch."""

    def draw_triple(low: float, high: float) -> tuple[float, float, float]:
        a, b, c = rng.uniform(low, high, 3)
        return float(a), float(b), float(c)

    def draw_bool(probability: float) -> bool:
        return bool(rng.random() < probability)

    def draw_uniform(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    angle, scale = (
        math.radians(config.augmentation.max_rotation_degrees),
        config.augmentation.scale_range,
    )
    a, b, c = draw_triple(-angle, angle)
    limit_d, limit_h, limit_w = compute_rotation_limits(config.batch.patch_size)
    return Augmentation(
        angles=(a * limit_d, b * limit_h, c * limit_w),
        scales=draw_triple(1.0 - 0.8 * scale, 1.0 + scale),
        flip_left_right=config.augmentation.flip_left_right and draw_bool(0.5),
        blur=draw_triple(*BLUR_SIGMA_VOXELS) if draw_bool(BLUR_PROBABILITY) else None,
        zoom=draw_uniform(*LOW_RESOLUTION_ZOOM_RANGE)
        if draw_bool(LOW_RESOLUTION_PROBABILITY)
        else None,
        noise_std=draw_uniform(0.0, MAX_NOISE_STD) if draw_bool(NOISE_PROBABILITY) else None,
        brightness=(
            draw_uniform(-MAX_BRIGHTNESS, MAX_BRIGHTNESS)
            if draw_bool(BRIGHTNESS_PROBABILITY)
            else None
        ),
        gamma=draw_uniform(*GAMMA_RANGE) if draw_bool(GAMMA_PROBABILITY) else None,
    )


def compute_rotation_limits(patch: Shape | None) -> tuple[float, float, float]:
    """Compute the fraction of the largest angle to use for rotations about the axes D, H and W.

    Thin patches, of scans with few slices, are tilted little, because their ends would leave the
    scan.
    """
    if patch is None:
        return 1.0, 1.0, 1.0
    limits = []
    for axis in range(3):
        short, long = sorted(side for other, side in enumerate(patch) if other != axis)
        limits.append(1.0 if short >= THIN_SIDE_VOXELS else min(1.0, 2.0 * short / long))
    return limits[0], limits[1], limits[2]


def compute_crop_shape(patch: Shape, config: TrainConfig) -> Shape:
    """Compute the crop size for a patch so that its corners contain image data after rotation."""
    if not config.augmentation.enabled:
        return patch
    factor = (
        1.0 + config.augmentation.scale_range / 2 + config.augmentation.max_rotation_degrees / 90
    )
    d, h, w = (math.ceil(p * factor / 2) * 2 for p in patch)
    return d, h, w


def augment_patches(
    image: Tensor,
    label: Tensor | None,
    augmentations: Sequence[Augmentation],
    patch: Shape,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor | None]:
    """Augment crops to patches, one augmentation each.

    Parameters
    ----------
    image : (B, C, d, h, w), floating point
    label : (B, d, h, w) uint8, or None
    patch : voxels (D, H, W)
    generator : generator of the noise, on the device of the crops

    Returns
    -------
    float32 (B, C, D, H, W) and int64 (B, D, H, W) or None
    """
    image, label = sample_patches(image.float(), label, build_affine_matrices(augmentations), patch)
    for number, augmentation in enumerate(augmentations):
        _augment_intensities(image[number], augmentation, generator)
    return image, label


def build_affine_matrices(augmentations: Sequence[Augmentation]) -> npt.NDArray[np.float32]:
    """Build matrices ``(B, 3, 3)`` from patch to crop voxel coordinates, about the centers."""
    matrices = []
    for augmentation in augmentations:
        matrix = np.eye(3)
        for axis, angle in enumerate(augmentation.angles):
            matrix = matrix @ _rotation_matrix(axis, angle)
        scales = np.array(augmentation.scales)
        scales[2] *= -1 if augmentation.flip_left_right else 1
        matrices.append(matrix * scales)
    return np.stack(matrices).astype(np.float32)


def _rotation_matrix(axis: int, angle: float) -> npt.NDArray[np.float64]:
    """Build a right-handed rotation about an axis of (D, H, W)."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = math.cos(angle)
    matrix[second, first] = math.sin(angle)
    matrix[first, second] = -math.sin(angle)
    return matrix


def sample_patches(
    image: Tensor, label: Tensor | None, matrices: npt.NDArray[np.float32], patch: Shape
) -> tuple[Tensor, Tensor | None]:
    """Sample patches from crops: images with linear, labels with nearest interpolation.

    The border of a crop is repeated outside of it.
    """
    matrix = torch.from_numpy(matrices).to(image.device, non_blocking=True)
    sizes = image.shape[2:]
    grid = image.new_empty((len(image), *patch, 3))
    index = None
    for axis, coordinate in enumerate(_iter_coordinates(matrix, patch)):
        n = sizes[axis]
        torch.mul(
            coordinate, 2.0 / n, out=grid[..., 2 - axis]
        )  # grid_sample counts axes from the last
        if label is not None:
            nearest = coordinate.add_((n - 1) / 2).round_().clamp_(0, n - 1).long()
            index = nearest if index is None else index.mul_(n).add_(nearest)
    sampled = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
    if label is None or index is None:
        return sampled, None
    values = label.flatten(1).gather(1, index.flatten(1))
    return sampled, values.view(index.shape).long()


def _iter_coordinates(matrix: Tensor, patch: Shape) -> Iterator[Tensor]:
    """Yield the coordinates of patch voxels along each axis of the crops, from the center.

    They are sums of one term per axis of the patch; ``affine_grid`` multiplies matrices, which
    takes five times as long on a CPU and is imprecise on GPUs with TF32 enabled.
    """
    positions = [torch.arange(n, device=matrix.device) - (n - 1) / 2 for n in patch]
    for axis in range(3):
        d, h, w = (matrix[:, axis, i, None] * positions[i] for i in range(3))
        yield d[:, :, None, None] + h[:, None, :, None] + w[:, None, None, :]


def _augment_intensities(
    image: Tensor, augmentation: Augmentation, generator: torch.Generator
) -> None:
    """Augment the intensities of a patch ``(C, D, H, W)`` in place."""
    if augmentation.blur or augmentation.zoom:
        image.copy_(filter_axes(image, augmentation.blur, augmentation.zoom))
    if augmentation.noise_std:
        noise = torch.randn(image.shape, generator=generator, device=image.device)
        image.add_(noise, alpha=augmentation.noise_std)
    if augmentation.brightness:
        image.mul_(1.0 + augmentation.brightness)
    if augmentation.gamma:
        image.copy_(adjust_contrast(image, augmentation.gamma))


def filter_axes(
    image: Tensor, blur: tuple[float, float, float] | None, zoom: float | None
) -> Tensor:
    """Blur ``(C, D, H, W)`` and reduce its resolution.

    Both are linear and separable: one small matrix along each axis combines them.
    """
    filters = []
    for axis, n in enumerate(image.shape[1:]):
        matrix = torch.eye(n, device=image.device)
        if blur:
            matrix = _blur_matrix(n, blur[axis], image.device)
        if zoom:
            matrix = matrix @ _low_resolution_matrix(n, zoom, image.device)
        filters.append(matrix)
    filter_d, filter_h, filter_w = filters
    image = image @ filter_w
    image = filter_h.T @ image
    return (filter_d.T @ image.flatten(2)).view(image.shape)


def _blur_matrix(n: int, sigma: float, device: torch.device) -> Tensor:
    """Build a Gaussian filter of n voxels, zero outside; weights are integrals over a voxel."""
    tail = int(max(sigma * BLUR_TRUNCATION, 0.5) + 0.5)
    positions = torch.arange(n, device=device)
    distance = (positions[:, None] - positions).float()
    scale = 1.0 / (math.sqrt(2.0) * sigma)
    weights = torch.erf((distance + 0.5) * scale) - torch.erf((distance - 0.5) * scale)
    return 0.5 * weights * (distance.abs() <= tail)


def _low_resolution_matrix(n: int, zoom: float, device: torch.device) -> Tensor:
    """Build a matrix that keeps every ``1 / zoom``-th of n voxels and interpolates linearly."""
    low_size = max(1, round(n * zoom))
    rows = torch.eye(n, device=device)[None]
    rows = F.interpolate(rows, size=low_size, mode="nearest")
    return F.interpolate(rows, size=n, mode="linear", align_corners=False)[0]


def adjust_contrast(image: Tensor, gamma: float) -> Tensor:
    """Apply gamma between minimum and maximum intensity; keeps mean and deviation."""
    low, high = torch.aminmax(image)
    mean = image.mean()
    std = _compute_std(image - mean)
    changed = ((image - low) / (high - low + EPS)).pow_(gamma)
    changed.sub_(changed.mean())
    return changed.mul_(std / (_compute_std(changed) + EPS)).add_(mean)


def _compute_std(differences: Tensor) -> Tensor:
    """Compute the standard deviation of centered values; ``Tensor.std`` is slow on CPUs."""
    norm: Tensor = torch.linalg.vector_norm(differences)
    return norm / math.sqrt(max(differences.numel() - 1, 1))
