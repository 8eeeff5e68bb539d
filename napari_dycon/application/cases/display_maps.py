"""Uncertainty maps as they are displayed, without artifacts of the network.

- A network at half resolution upsamples by transposed convolutions, which leave a checkerboard with
  a period of one of its cells, mostly while it is young. A low-pass filter of that size removes it.
- Convolutions pad with zeros, so that a network is uncertain along the faces of a scan, and where
  padding surrounds a scan. Both are cleared, except where a predicted structure extends there.

Stored maps, scores and uncertain regions are not affected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_dycon.core.types import Array, LabelArray, Mask

SIGMA_CELLS = 0.45  # a period of one cell is reduced to 2 %
MAX_SIGMA_VOXELS = 2.0
MIN_SIGMA_VOXELS = 0.2  # below, a Gaussian has no effect
TRUNCATE_SIGMAS = 2.5
EXACT_CELL_TOLERANCE = 0.2
FACE_CELLS = 2.0  # cleared at each face
MAX_COARSENING = 4.0  # largest voxel of a network, in voxels of the scan
DisplayMap = npt.NDArray[np.float16]


def get_cell_mm(config: Mapping[str, Any], spacing_mm: Sequence[float]) -> tuple[float, ...]:
    """Size of the cells of a network's first level, from the settings of a run.

    Settings come from the project folder; unusable ones are replaced by the scan's own spacing.
    """
    preprocessing, network = config.get("preprocessing"), config.get("network")
    planned = preprocessing.get("spacing") if isinstance(preprocessing, dict) else None
    is_full = isinstance(network, dict) and network.get("half_resolution") is False
    if (
        not isinstance(planned, (list, tuple))
        or len(planned) != len(spacing_mm)
        or not all(isinstance(p, (int, float)) and np.isfinite(p) and p > 0 for p in planned)
    ):
        planned = spacing_mm
    return tuple(
        float(np.clip(p, s / MAX_COARSENING, s * MAX_COARSENING)) * (1 if is_full else 2)
        for p, s in zip(planned, spacing_mm, strict=True)
    )


def make_display_map(
    values: npt.NDArray[np.float32],
    prediction: LabelArray | None,
    scan: Array,
    cell_voxels: Sequence[float],
) -> DisplayMap:
    """Clear a map along the faces of the scan and of its padding, and smooth it.

    Parameters
    ----------
    values : (D, H, W), from 0 to 1
    prediction : (D, H, W), or ``None``
    scan : (D, H, W), one channel
    cell_voxels : size of the network's cells in voxels of the scan
    """
    result: npt.NDArray[Any] = values.astype(np.float32)  # a copy
    content = find_content(scan)
    for axis, (cell, span) in enumerate(zip(cell_voxels, content, strict=True)):
        width = max(round(FACE_CELLS * cell), 1)
        if span.stop - span.start > 4 * width:  # few thick slices are all near a face
            _clear_face(result, prediction, axis, slice(0, span.start + width), width)
            _clear_face(result, prediction, axis, slice(span.stop - width, None), width)
    for axis, cell in enumerate(cell_voxels):
        sigma = min(SIGMA_CELLS * cell, MAX_SIGMA_VOXELS)
        if values.shape[axis] == 1 or sigma < MIN_SIGMA_VOXELS:
            continue
        if abs(cell - 2.0) < EXACT_CELL_TOLERANCE:
            _smooth_pairs(result, axis)
        else:
            result = ndimage.gaussian_filter1d(
                result, sigma, axis=axis, mode="nearest", truncate=TRUNCATE_SIGMAS
            )
    return result.astype(np.float16)


def _smooth_pairs(values: npt.NDArray[np.float32], axis: int) -> None:
    """Filter in place with (1, 2, 1) / 4, which removes a period of two voxels exactly.

    Going through slices, which stay in the processor's cache, takes a fraction of the time of a
    Gaussian.
    """
    if axis == 0:
        previous = values[0].copy()
        for index in range(len(values)):
            current = values[index].copy()
            following = values[min(index + 1, len(values) - 1)]
            values[index] = 0.25 * (previous + following) + 0.5 * current
            previous = current
        return
    for plane in values:
        lines = plane if axis == 1 else plane.T
        smooth = 0.5 * lines
        smooth[1:] += 0.25 * lines[:-1]
        smooth[:-1] += 0.25 * lines[1:]
        smooth[[0, -1]] += 0.25 * lines[[0, -1]]
        lines[...] = smooth


def find_content(scan: Array) -> tuple[slice, ...]:
    """Find the part of a scan without constant slices at its ends, as padding leaves them."""
    spans = []
    for axis, size in enumerate(scan.shape):
        start, stop = 0, size
        while start < stop and _is_constant(scan, axis, start):
            start += 1
        while stop > start and _is_constant(scan, axis, stop - 1):
            stop -= 1
        spans.append(slice(start, stop) if start < stop else slice(0, size))
    return tuple(spans)


def _is_constant(scan: Array, axis: int, index: int) -> bool:
    part = scan[_select(axis, index)]
    return bool((part == part.flat[0]).all())


def _clear_face(
    values: npt.NDArray[Any], prediction: LabelArray | None, axis: int, span: slice, width: int
) -> None:
    """Clear a slab at a face, except near predicted structures that reach it."""
    slab = values[_select(axis, span)]
    if prediction is None:
        slab[...] = 0
        return
    size = values.shape[axis]
    start, stop, _ = span.indices(size)
    wider = slice(max(start - width, 0), min(stop + width, size))
    is_structure: Mask = np.any(prediction[_select(axis, wider)] > 0, axis=axis)
    is_near = ndimage.maximum_filter(is_structure, 2 * width + 1)
    slab[...] = np.where(np.expand_dims(is_near, axis), slab, 0)


def _select(axis: int, index: int | slice) -> tuple[int | slice, ...]:
    return tuple(index if a == axis else slice(None) for a in range(3))
