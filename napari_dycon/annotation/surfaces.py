"""Smooth surfaces of segmented structures, for a view in three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse
from skimage.measure import marching_cubes

from napari_dycon.core.boxes import bounding_box
from napari_dycon.core.types import Mask

MAX_VOXELS = 1_500_000  # of a structure's box; larger ones are averaged to coarser voxels
MAX_FACES = 200_000
BLUR_VOXELS = 0.5
LEVEL = 0.4  # single voxels, blurred, are just above
SMOOTHING_STEPS = 10
SHRINK, GROW = 0.5, -0.53  # Taubin's filter: alternating steps keep the volume
MARGIN_VOXELS = 2


@dataclass(frozen=True)
class SurfaceMesh:
    """Triangles; ``vertices`` (n, 3) are in voxels of the whole array, ``faces`` (m, 3)."""

    vertices: npt.NDArray[np.float32]
    faces: npt.NDArray[np.int32]


def extract_surface(
    mask: Mask, spacing_mm: Sequence[float], max_faces: int = MAX_FACES
) -> SurfaceMesh | None:
    """Extract the smoothed surface of a mask ``(D, H, W)``; ``None`` if it is empty.

    Large structures are averaged to coarser voxels, so that time and size are bounded.
    """
    box = bounding_box(mask)
    if box is None:
        return None
    cropped = mask[box]
    factors = choose_factors(cropped.shape, spacing_mm, MAX_VOXELS)
    while True:
        vertices, faces = _triangulate(average_blocks(cropped, factors))
        if len(faces) <= max_faces or min(cropped.shape) <= 2 * max(factors):
            break
        factors = tuple(2 * f for f in factors)
    if not len(faces):
        return None
    vertices = smooth_vertices(vertices, faces)
    offsets = np.array([span.start for span in box], np.float32)
    vertices = vertices * np.array(factors) + (np.array(factors) - 1) / 2 + offsets
    # Sliders of napari would extend beyond the scan.
    vertices = np.clip(vertices, 0, np.array(mask.shape) - 1)
    return SurfaceMesh(vertices.astype(np.float32), faces.astype(np.int32))


def choose_factors(
    shape: Sequence[int], spacing_mm: Sequence[float], max_voxels: int
) -> tuple[int, ...]:
    """Choose how many voxels are averaged along each axis; the finest axis comes first."""
    factors = [1] * len(shape)
    while np.prod([-(-n // f) for n, f in zip(shape, factors, strict=True)]) > max_voxels:
        finest = min(range(len(shape)), key=lambda axis: factors[axis] * spacing_mm[axis])
        factors[finest] *= 2
    return tuple(factors)


def average_blocks(mask: Mask, factors: Sequence[int]) -> npt.NDArray[np.float32]:
    """Average blocks of voxels, also incomplete ones at the end (as if empty voxels followed)."""
    result: npt.NDArray[Any] = mask.view(np.uint8)
    for axis, factor in enumerate(factors):
        if factor > 1:
            starts = np.arange(0, result.shape[axis], factor)
            result = np.add.reduceat(result, starts, axis=axis, dtype=np.float32) / factor
    return result.astype(np.float32)


def smooth_vertices(
    vertices: npt.NDArray[np.float32], faces: npt.NDArray[np.int32]
) -> npt.NDArray[np.float32]:
    """Remove the steps between voxels with Taubin's filter, which keeps the volume."""
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    count = len(vertices)
    neighbors = sparse.csr_matrix(
        (np.ones(len(pairs), np.float32), (pairs[:, 0], pairs[:, 1])), shape=(count, count)
    )
    neighbors.data[:] = 1.0  # an edge belongs to two triangles
    degrees = np.maximum(np.asarray(neighbors.sum(axis=1)), 1.0)
    for _ in range(SMOOTHING_STEPS):
        for strength in (SHRINK, GROW):
            vertices = vertices + strength * (neighbors @ vertices / degrees - vertices)
    return vertices.astype(np.float32)


def _triangulate(
    values: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Triangulate the surface of values from 0 to 1; vertices are indices into ``values``."""
    padded = ndimage.gaussian_filter(np.pad(values, MARGIN_VOXELS), BLUR_VOXELS)
    level = min(LEVEL, 0.5 * float(padded.max()))
    if level <= 0:
        return np.empty((0, 3), np.float32), np.empty((0, 3), np.int32)
    vertices, faces, _, _ = marching_cubes(padded, level)
    return (vertices - MARGIN_VOXELS).astype(np.float32), faces.astype(np.int32)
