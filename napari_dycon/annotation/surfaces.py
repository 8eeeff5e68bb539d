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
from napari_dycon.core.types import LabelArray, Mask

MAX_VOXELS = 1_500_000  # of a structure's box; larger ones are averaged to coarser voxels
MAX_FACES = 200_000
MIN_FACES = 2_000  # that a structure may have, even if it is one of many
BLUR_VOXELS = 0.5
LEVEL = 0.4  # single voxels, blurred, are just above
SMOOTHING_STEPS = 10
SHRINK, GROW = 0.5, -0.53  # Taubin's filter: alternating steps keep the volume
MARGIN_VOXELS = 2
LIGHT_DIRECTION = (0.6, -0.8, 0.4)  # superior, posterior, left: from the front and above


@dataclass(frozen=True)
class SurfaceMesh:
    """Triangles of a surface.

    Attributes
    ----------
    vertices : (n, 3), in voxels of the whole array
    faces : (m, 3), indices of vertices
    brightness : (n,), from 0 to 1, as lit from the front and above
    """

    vertices: npt.NDArray[np.float32]
    faces: npt.NDArray[np.int32]
    brightness: npt.NDArray[np.float32]


def extract_surfaces(
    labels: LabelArray,
    values: Sequence[int],
    spacing_mm: Sequence[float],
    max_faces: int = MAX_FACES,
) -> dict[int, SurfaceMesh]:
    """Extract the surfaces of the structures that labels ``(D, H, W)`` contain.

    Parameters
    ----------
    max_faces : number of triangles that the structures share, though each may have ``MIN_FACES``
    """
    boxes = dict(enumerate(ndimage.find_objects(labels), start=1))
    present = [value for value in values if boxes.get(value) is not None]
    meshes = {}
    for value in present:
        # One voxel more on each side: surfaces are clipped to the array they are extracted from.
        box = tuple(slice(max(span.start - 1, 0), span.stop + 1) for span in boxes[value])
        share = max(max_faces // len(present), MIN_FACES)
        mesh = extract_surface(labels[box] == value, spacing_mm, share)
        if mesh is not None:
            origin = np.array([span.start for span in box], np.float32)
            meshes[value] = SurfaceMesh(mesh.vertices + origin, mesh.faces, mesh.brightness)
    return meshes


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
        if len(faces) <= max_faces:
            break
        factors = tuple(2 * f for f in factors)
    if not len(faces):
        return None
    vertices = smooth_vertices(vertices, faces)
    offsets = np.array([span.start for span in box], np.float32)
    vertices = vertices * np.array(factors) + (np.array(factors) - 1) / 2 + offsets
    # Sliders of napari would extend beyond the scan.
    vertices = np.clip(vertices, 0, np.array(mask.shape) - 1)
    brightness = compute_brightness(vertices * np.array(spacing_mm), faces)
    return SurfaceMesh(vertices.astype(np.float32), faces.astype(np.int32), brightness)


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


def compute_brightness(
    vertices_mm: npt.NDArray[Any], faces: npt.NDArray[np.int32]
) -> npt.NDArray[np.float32]:
    """Brightness of the vertices of a closed surface: 1 towards the light, 0 away from it."""
    a, b, c = (vertices_mm[faces[:, i]] for i in range(3))
    face_normals = np.cross(b - a, c - a)
    if np.einsum("ij,ij->", a - vertices_mm.mean(axis=0), face_normals) < 0:
        face_normals = -face_normals  # outwards
    normals = np.zeros(vertices_mm.shape)
    for corner in range(3):
        for axis in range(3):
            normals[:, axis] += np.bincount(
                faces[:, corner], face_normals[:, axis], minlength=len(normals)
            )
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    light = np.array(LIGHT_DIRECTION) / np.linalg.norm(LIGHT_DIRECTION)
    return np.asarray(0.5 + 0.5 * normals @ light, np.float32)


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
