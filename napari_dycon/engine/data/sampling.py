"""Sampling of patch centers and cropping of volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from napari_dycon.core.types import UNANNOTATED, Array

ClassVoxels = tuple[int, Array]  # value of a class, some of its voxels (n, 3)


def voxels_by_class(label: Array, max_voxels: int = 5_000) -> list[ClassVoxels]:
    """List voxels of every structure in a label: ``(value, voxels (n, 3))``.

    In a partly annotated label, a further entry of value -1 lists annotated background. A random
    sample of at most ``max_voxels`` per structure is kept, since a run may have a thousand labels.
    """
    rng = np.random.default_rng(0)
    flat = np.asarray(label).reshape(-1)
    foreground = np.flatnonzero(
        flat - np.uint8(1) < UNANNOTATED - 1
    )  # neither 0 nor 255, in one pass
    values = flat[foreground]
    indices_by_class = [
        (value, foreground[values == value])
        for value in np.flatnonzero(np.bincount(values)).tolist()
    ]
    if (flat == UNANNOTATED).any():
        background = np.flatnonzero(flat == 0)
        indices_by_class += [(-1, background)] if len(background) else []
    sampled = []
    for value, indices in indices_by_class:
        if len(indices) > max_voxels // len(indices_by_class):
            indices = indices[rng.integers(len(indices), size=max_voxels // len(indices_by_class))]
        voxels = np.stack(np.unravel_index(indices, label.shape), axis=-1)
        sampled.append((value, voxels.astype(np.int16)))
    return sampled


def draw_center(
    rng: np.random.Generator, shape: Sequence[int], patch: Sequence[int]
) -> tuple[int, ...]:
    """Draw a uniformly distributed center of a patch inside the volume."""
    return tuple(
        int(rng.integers(p // 2, max(n - (p - p // 2), p // 2) + 1)) if n > p else n // 2
        for n, p in zip(shape, patch, strict=True)
    )


def clamp_center(center: Array, shape: Sequence[int], patch: Sequence[int]) -> tuple[int, ...]:
    """Move a center so that its patch is inside the volume (or centered on a smaller one)."""
    return tuple(
        int(np.clip(c, p // 2, n - (p - p // 2))) if n > p else n // 2
        for c, n, p in zip(center, shape, patch, strict=True)
    )


def crop(volume: Any, center: Sequence[int], out: Any, fill: int | None) -> None:
    """Copy the voxels around ``center`` of ``(C, D, H, W)`` into ``out (C, d, h, w)``.

    Outside the volume the nearest voxel is repeated, or ``fill`` is set. Volume and output are both
    arrays, or both tensors on one device; only voxels inside the crop are read.
    """
    source, inside = [slice(None)], [slice(None)]
    for c, size, n in zip(center, out.shape[1:], volume.shape[1:], strict=True):
        start = c - size // 2
        first, last = min(max(start, 0), n - 1), max(min(start + size, n), 1)
        source.append(slice(first, last))
        inside.append(slice(first - start, last - start))
    if fill is not None:
        out[...] = fill
    out[tuple(inside)] = volume[tuple(source)]
    if fill is None:
        _repeat_edges(out, inside)


def _repeat_edges(out: Any, inside: Sequence[slice]) -> None:
    """Repeat the edges of the filled region of ``(C, d, h, w)``, one axis after another."""
    region = list(inside)
    for axis in (3, 2, 1):
        start, stop = inside[axis].start, inside[axis].stop
        for edge, outside in ((start, slice(0, start)), (stop - 1, slice(stop, None))):
            source, target = list(region), list(region)
            source[axis], target[axis] = slice(edge, edge + 1), outside
            out[tuple(target)] = out[tuple(source)]
        region[axis] = slice(None)
