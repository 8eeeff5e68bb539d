"""Deformable registration of small volumes by gradient descent, many pairs at once.

The field that warps a labeled scan to an unlabeled one also warps its label exactly, which gives a
labeled scan with a realistic shape (``registered_cases.py``; following Zhao et al., "Data
augmentation using learned transformations", CVPR 2019). Similarity is the local normalized
cross-correlation (Avants et al., Medical Image Analysis 2008), which is invariant to brightness. An
affine map is fitted first, then a coarse and a fine grid of displacements are added.

Coordinates are those of ``torch.nn.functional.grid_sample``: each axis of a volume runs from -1 to
1, so that scans of different sizes overlap from the start.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_dycon.engine.atlas.box_filter import padded_local_sum
from napari_dycon.engine.device import use_single_thread

Shape = tuple[int, int, int]

GRID_VOXELS = 12_000  # of the grid on which two scans are registered
# From coarse to fine: downsampling factor along each axis, iterations, and how many of the two
# displacement grids are fitted in addition to the affine map.
SCHEDULE = ((2, 10, 0), (2, 10, 1), (1, 8, 2))
SMOOTHNESS_WEIGHT = 0.8  # of the squared displacement gradient, in grid voxels
NCC_RADIUS = 2  # grid voxels around each that are compared
NCC_WINDOW_VOXELS = (2 * NCC_RADIUS + 1) ** 3
MIN_VARIANCE = 1.0  # sum over these 125 voxels, below which there is nothing to match
COARSE_SPACING_VOXELS, FINE_SPACING_VOXELS = 4, 2  # grid voxels between displacements
AFFINE_LEARNING_RATE, COARSE_LEARNING_RATE, FINE_LEARNING_RATE = 0.03, 0.06, 0.04


def registration_shape(shapes: Sequence[Sequence[int]], n_voxels: int = GRID_VOXELS) -> Shape:
    """Compute the shape (D, H, W) of the common grid.

    It has the proportions of the mean scan, and its sides are multiples of
    ``COARSE_SPACING_VOXELS``. An axis has at least two coarse displacements; the other axes share
    the remaining voxels.
    """
    mean = [sum(shape[axis] for shape in shapes) / len(shapes) for axis in range(3)]
    remaining_voxels, sizes = float(n_voxels), {}
    for n_sized, axis in enumerate(sorted(range(3), key=lambda axis: mean[axis])):
        remaining_volume = math.prod(mean[other] for other in range(3) if other not in sizes)
        factor = min(1.0, (remaining_voxels / remaining_volume) ** (1 / (3 - n_sized)))
        sizes[axis] = (
            max(round(mean[axis] * factor / COARSE_SPACING_VOXELS), 2) * COARSE_SPACING_VOXELS
        )
        remaining_voxels /= sizes[axis]
    return sizes[0], sizes[1], sizes[2]


class RegistrationStoppedError(Exception):
    """A registration was stopped before its end."""


def register(
    moving: Tensor,
    fixed: Tensor,
    *,
    schedule: Sequence[tuple[int, int, int]] = SCHEDULE,
    should_stop: Callable[[], bool] = lambda: False,
) -> Tensor:
    """Estimate the displacement fields that register each moving volume to its fixed volume.

    Parameters
    ----------
    moving, fixed : (N, C, D, H, W), pairs on one grid, intensities of mean 0 and deviation 1
    schedule : stages of ``(downsampling factor, iterations, displacement grids)``
    should_stop : called before each iteration

    Returns
    -------
    (N, D, H, W, 3): for each voxel of the fixed volume, the offset of its match in the moving
    volume; see ``sampling_grid``

    Raises
    ------
    RegistrationStoppedError
        ``should_stop`` returned true.
    """
    with use_single_thread(moving.device):
        return _register(moving, fixed, schedule, should_stop)


def _register(
    moving: Tensor,
    fixed: Tensor,
    schedule: Sequence[tuple[int, int, int]],
    should_stop: Callable[[], bool],
) -> Tensor:
    count, grid = len(moving), moving.shape[2:]
    affine = torch.zeros(count, 3, 4, device=moving.device, requires_grad=True)
    levels = [
        torch.zeros(count, 3, *(n // step for n in grid), device=moving.device, requires_grad=True)
        for step in (COARSE_SPACING_VOXELS, FINE_SPACING_VOXELS)
    ]
    optimizer = torch.optim.Adam(
        [
            {"params": [affine], "lr": AFFINE_LEARNING_RATE},
            {"params": levels[:1], "lr": COARSE_LEARNING_RATE},
            {"params": levels[1:], "lr": FINE_LEARNING_RATE},
        ]
    )
    with torch.enable_grad():
        for pool_size, iterations, n_fitted in schedule:
            source, target = (F.avg_pool3d(v, pool_size) for v in (moving, fixed))
            size, similarity = target.shape[2:], build_local_ncc(target)
            # One unit of displacement is half of the grid along its axis.
            half_sizes = _half_sizes(size, moving.device)
            interpolations = [
                _interpolation_matrices(level.shape[2:], size, moving.device) for level in levels
            ]
            for _ in range(iterations):
                if should_stop():
                    raise RegistrationStoppedError
                field = _affine_field(affine, size)
                loss = torch.zeros((), device=moving.device)
                if n_fitted:
                    displacement = _sum_displacements(levels[:n_fitted], interpolations)
                    field = field + displacement
                    loss = loss + SMOOTHNESS_WEIGHT * _diffusion_penalty(displacement * half_sizes)
                loss = loss - similarity(warp(source, field.movedim(1, -1)))
                optimizer.zero_grad(set_to_none=True)
                (loss * count).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    with torch.no_grad():
        interpolations = [
            _interpolation_matrices(level.shape[2:], grid, moving.device) for level in levels
        ]
        field = _affine_field(affine, grid) + _sum_displacements(levels, interpolations)
        return field.movedim(1, -1) - _identity_grid(grid, moving.device)


def _half_sizes(size: Sequence[int], device: torch.device) -> Tensor:
    """Return half of a grid's sides along x, y and z, (1, 3, 1, 1, 1), created on the device."""
    half = [torch.full((1,), n / 2.0, device=device) for n in reversed(size)]
    return torch.cat(half).view(1, 3, 1, 1, 1)


def build_local_ncc(fixed: Tensor) -> Callable[[Tensor], Tensor]:
    """Build a function that computes the mean squared local NCC with ``fixed``, (N, C, D, H, W).

    Equals MONAI's ``LocalNormalizedCrossCorrelationLoss`` except for the sign. It dominates the
    time of a registration, which this implementation more than halves on a CPU.
    """
    mean = padded_local_sum(fixed, NCC_RADIUS) / NCC_WINDOW_VOXELS
    spread = _compute_spread(fixed, mean).clamp_(min=MIN_VARIANCE)

    def local_ncc(volume: Tensor) -> Tensor:
        ncc: Tensor = _LocalNcc.apply(volume, fixed, mean, spread)  # type: ignore[no-untyped-call]
        return ncc

    return local_ncc


def _compute_spread(volume: Tensor, mean: Tensor) -> Tensor:
    """Compute the sum of squared differences from the local mean around each voxel."""
    return padded_local_sum(volume.square(), NCC_RADIUS).addcmul_(
        mean, mean, value=-NCC_WINDOW_VOXELS
    )


class _LocalNcc(torch.autograd.Function):
    """Mean of ``s^2 / (V F)``, ``s`` the covariance and ``V``, ``F`` the spreads of two volumes.

    The derivative is analytic: with a symmetric box sum ``B``, ``ds = B(f dv) - m_f B(dv)`` and
    ``dV = 2 B(v dv) - 2 m_v B(dv)``. It needs half as many box sums and arrays as autograd.
    """

    @staticmethod
    def forward(
        ctx: Any, volume: Tensor, fixed: Tensor, fixed_mean: Tensor, fixed_spread: Tensor
    ) -> Tensor:
        volume_mean = padded_local_sum(volume, NCC_RADIUS) / NCC_WINDOW_VOXELS
        volume_spread = _compute_spread(volume, volume_mean)
        is_flat = volume_spread < MIN_VARIANCE
        volume_spread = volume_spread.clamp_(min=MIN_VARIANCE)
        covariance = padded_local_sum(volume * fixed, NCC_RADIUS).addcmul_(
            volume_mean, fixed_mean, value=-NCC_WINDOW_VOXELS
        )
        slope = covariance / (volume_spread * fixed_spread)
        value = slope * covariance
        if ctx.needs_input_grad[0]:
            falling = (value / volume_spread).masked_fill_(is_flat, 0.0)
            gradient = padded_local_sum(slope, NCC_RADIUS).mul_(fixed)
            gradient.addcmul_(padded_local_sum(falling, NCC_RADIUS), volume, value=-1.0)
            offset = falling.mul_(volume_mean).addcmul_(slope, fixed_mean, value=-1.0)
            gradient += padded_local_sum(offset, NCC_RADIUS)
            ctx.save_for_backward(gradient.mul_(2.0 / volume.numel()))
        return value.mean()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output, None, None, None


def sampling_grid(displacement: Tensor, shape: Sequence[int]) -> Tensor:
    """Compute the coordinates in the moving volume for each voxel of a grid over the fixed one.

    Displacements are interpolated instead of coordinates, which avoids distortion at the border.

    Parameters
    ----------
    displacement : (N, d, h, w, 3), from ``register``
    shape : (D, H, W)

    Returns
    -------
    (N, D, H, W, 3)
    """
    size = tuple(int(n) for n in shape)
    resized = F.interpolate(
        displacement.movedim(-1, 1), size=size, mode="trilinear", align_corners=False
    )
    return _identity_grid(size, displacement.device) + resized.movedim(1, -1)


def warp(volume: Tensor, field: Tensor, mode: str = "bilinear") -> Tensor:
    """Sample volumes ``(N, C, d, h, w)`` at the coordinates ``(N, D, H, W, 3)`` of a field."""
    return F.grid_sample(volume, field, mode=mode, padding_mode="border", align_corners=False)


def _identity_grid(grid: Sequence[int], device: torch.device) -> Tensor:
    """Return the identity field, (1, D, H, W, 3)."""
    unit = torch.eye(3, 4, device=device)[None]
    return F.affine_grid(unit, [1, 1, *grid], align_corners=False)


def _affine_field(affine: Tensor, grid: Sequence[int]) -> Tensor:
    """Compute coordinates ``(N, 3, D, H, W)`` under affine maps ``(N, 3, 4)``, in order x, y, z.

    Each is a sum of one term per axis, several times as fast as a product with all voxels.
    """
    matrix = affine + torch.eye(3, 4, device=affine.device)
    field = matrix[:, :, 3].view(-1, 3, 1, 1, 1)
    for axis, length in enumerate(grid):
        centers = (2 * torch.arange(length, device=affine.device) + 1) / length - 1
        view = [length if a == axis else 1 for a in range(3)]
        field = field + matrix[:, :, 2 - axis].view(-1, 3, 1, 1, 1) * centers.view(1, 1, *view)
    return field


def _sum_displacements(
    levels: Sequence[Tensor], interpolations: Sequence[Sequence[Tensor]]
) -> Tensor:
    """Interpolate displacement grids ``(N, 3, d, h, w)`` to ``(D, H, W)`` and sum them."""
    terms = []
    for level, (depth, height, width) in zip(levels, interpolations, strict=False):
        wide = level @ width  # (N, 3, d, h, W)
        high = height @ wide  # (N, 3, d, H, W)
        terms.append((depth @ high.flatten(3)).view(*high.shape[:2], len(depth), *high.shape[3:]))
    return functools.reduce(torch.add, terms)


def _interpolation_matrices(
    shape: Sequence[int], size: Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Build linear interpolation matrices for each axis: ``(D, d)``, ``(H, h)`` and ``(w, W)``."""
    depth, height, width = (
        F.interpolate(torch.eye(n, device=device)[None], size=m, mode="linear")[0].T
        for n, m in zip(shape, size, strict=True)
    )
    return depth, height, width.T


def _diffusion_penalty(displacement: Tensor) -> Tensor:
    """Compute the mean squared difference of neighboring displacements, summed over axes."""
    terms = [displacement.diff(dim=axis).square().mean() for axis in (2, 3, 4)]
    return torch.stack(terms).sum()
