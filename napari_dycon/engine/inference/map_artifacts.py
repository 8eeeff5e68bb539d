"""Removal of two artifacts of networks from uncertainty maps that are shown and searched.

Files keep the maps as they were predicted.

- Checkerboard. A network at half resolution computes each block of 2 × 2 × 2 voxels of its grid
  from one location (a transposed convolution of size and stride 2). Until it has learned to make
  the eight outputs agree, its maps have a pattern that repeats every two voxels. The mean over one
  period removes exactly this pattern, and no structure that the network can resolve.
- Borders. Convolutions pad their input with zeros, which the network takes for an edge: the
  outermost voxels of a scan are uncertain whatever they show, and so are those beside slices of
  constant padding. In the width of one period, maps there repeat the value further inside, and in
  the padding itself they are zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_dycon.core.types import Array, Box
from napari_dycon.errors import ProjectError
from napari_dycon.project.store import Project

PERIOD_VOXELS = 2.0  # of the pattern, in voxels of the network's grid
MAX_BORDER_FRACTION = 0.05  # of the length of an axis, at each end
MAX_PERIOD = 32.0  # in voxels of the scan; settings of a run may be invalid

Map = npt.NDArray[np.float32]


def clean_map(values: Map, image: Array, period: Sequence[float]) -> Map:
    """Return a map without checkerboard and without borders.

    Parameters
    ----------
    values : (D, H, W)
    image : (D, H, W) or (C, D, H, W), the scan
    period : of the pattern along each axis, in voxels of the scan; see ``find_period``
    """
    content = find_content_box(image)
    inner = find_inner_box(content, period)
    smooth: Map = values[inner]
    for axis, length in enumerate(period):
        kernel = make_period_kernel(length)
        if len(kernel) > 1:
            smooth = ndimage.correlate1d(smooth, kernel, axis, mode="nearest")
    widths = [
        (inside.start - extent.start, extent.stop - inside.stop)
        for extent, inside in zip(content, inner, strict=True)
    ]
    cleaned: Map = np.zeros_like(values)
    cleaned[content] = np.pad(smooth, widths, mode="edge")
    return cleaned


def find_inner_box(content: Box, period: Sequence[float]) -> Box:
    """Return the part of a box of voxels in which maps do not suffer from its border."""
    widths = [
        min(math.ceil(length), int(MAX_BORDER_FRACTION * (extent.stop - extent.start)))
        for extent, length in zip(content, period, strict=True)
    ]
    return tuple(
        slice(extent.start + width, extent.stop - width)
        for extent, width in zip(content, widths, strict=True)
    )


def make_period_kernel(length: float) -> npt.NDArray[np.float64]:
    """Return the weights of the mean over an interval around a voxel, of a length in voxels."""
    half = max(math.ceil(length / 2 - 0.5), 0)
    offsets = np.arange(-half, half + 1)
    ends = np.minimum(offsets + 0.5, length / 2) - np.maximum(offsets - 0.5, -length / 2)
    return np.asarray(ends / ends.sum(), dtype=np.float64)


def find_content_box(image: Array) -> Box:
    """Return the box of a scan ``(D, H, W)`` or ``(C, D, H, W)`` without constant slices.

    Only slices at the ends are left out; if all are constant, it is the box of the whole scan.
    """
    image = image if image.ndim == 4 else image[None]
    box = []
    for axis, size in enumerate(image.shape[1:]):
        planes = np.moveaxis(image, axis + 1, 0)
        start, stop = 0, size
        while start < stop and _is_constant(planes[start]):
            start += 1
        while stop > start and _is_constant(planes[stop - 1]):
            stop -= 1
        if start == stop:
            return tuple(slice(0, size) for size in image.shape[1:])
        box.append(slice(start, stop))
    return tuple(box)


def _is_constant(plane: Array) -> bool:
    """Whether each channel ``(C, h, w)`` of a slice has a single value."""
    return all(bool((channel == channel.flat[0]).all()) for channel in plane)


def find_period(project: Project, run_id: str, spacing_mm: Sequence[float]) -> tuple[float, ...]:
    """Return the period of the checkerboard of a run, in voxels of a scan; 1 if it has none."""
    try:
        config = project.runs.get(run_id).read_config()
    except ProjectError:
        return (1.0, 1.0, 1.0)
    if not _read(config, "network", "half_resolution"):
        return (1.0, 1.0, 1.0)
    spacing = _read(config, "preprocessing", "spacing")
    is_valid = (
        isinstance(spacing, list)
        and len(spacing) == 3
        and all(isinstance(length, (int, float)) and 0 < length < 1e3 for length in spacing)
    )
    network_mm = spacing if is_valid else spacing_mm
    return tuple(
        min(max(PERIOD_VOXELS * float(length) / scan_mm, 1.0), MAX_PERIOD)
        for length, scan_mm in zip(network_mm, spacing_mm, strict=True)
    )


def _read(config: dict[str, Any], section: str, name: str) -> Any:
    values = config.get(section)
    return values.get(name) if isinstance(values, dict) else None
