"""Regions of interest: boxes of voxels from drawn rectangles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_dycon.core.types import UNANNOTATED, Box
from napari_dycon.errors import UserError


def rectangle_to_box(corners: npt.ArrayLike, axis: int, shape: Sequence[int]) -> Box:
    """Convert a rectangle to a box of the voxels whose centers it contains, one slice thick.

    Parameters
    ----------
    corners : points (N, 3) in voxels; the rectangle is their bounding box
    axis : axis perpendicular to the slice
    shape : shape of the scan (D, H, W)

    Raises
    ------
    UserError
        The rectangle is less than two voxels wide, or outside the scan.
    """
    points: npt.NDArray[Any] = np.asarray(corners, dtype=float)
    low, high = points.min(axis=0), points.max(axis=0)
    spans = []
    for a, size in enumerate(shape):
        if a == axis:
            slice_index = min(max(round(float(low[a])), 0), size - 1)
            spans.append(slice(slice_index, slice_index + 1))
            continue
        start, stop = int(np.ceil(low[a])), int(np.floor(high[a])) + 1
        if stop - start < 2:
            raise UserError(
                "The rectangle is too small. Hold the mouse button and drag to draw one."
            )
        if stop <= 0 or start >= size:
            raise UserError("The rectangle is outside the scan. Draw it over the scan.")
        spans.append(slice(max(start, 0), min(stop, size)))
    d, h, w = spans
    return d, h, w


def extrude_rectangle(
    rectangle: Box,
    axis: int,
    label: npt.NDArray[np.uint8],
    spacing: Sequence[float],
    margin_mm: float,
) -> Box:
    """Extend a rectangle along an axis from the first to the last slice with scribbles.

    Only scribbles of structures inside the rectangle count; without any, its own slice is used. The
    box is extended by the margin on both sides.

    Parameters
    ----------
    rectangle : box, one slice thick along ``axis``
    axis : axis perpendicular to the slices
    label : (D, H, W), 255 in unannotated voxels
    spacing : voxel size in mm
    margin_mm : margin along ``axis``
    """
    column = list(rectangle)
    column[axis] = slice(None)
    slices = np.moveaxis(label[tuple(column)], axis, 0)
    first, last = _find_first_scribble(slices), _find_first_scribble(slices[::-1])
    size = len(slices)
    margin = round(margin_mm / spacing[axis])
    start = rectangle[axis].start if first is None else first
    stop = rectangle[axis].stop if last is None else size - last
    return with_slice_extent(rectangle, axis, max(start - margin, 0), min(stop + margin, size))


def update_box(box: Box, rectangle: Box, axis: int) -> Box:
    """Update a box with a newly drawn rectangle.

    In a slice of the box, the rectangle replaces the outline of the box. In any other slice, the
    result is the bounding box of both.
    """
    slice_index = rectangle[axis].start
    if box[axis].start <= slice_index < box[axis].stop:
        return with_slice_extent(rectangle, axis, box[axis].start, box[axis].stop)
    d, h, w = (
        slice(min(a.start, b.start), max(a.stop, b.stop))
        for a, b in zip(box, rectangle, strict=True)
    )
    return d, h, w


def with_slice_extent(box: Box, axis: int, start: int, stop: int) -> Box:
    """Return a copy of the box with the range ``start`` to ``stop`` (exclusive) along an axis."""
    d, h, w = (slice(start, stop) if a == axis else span for a, span in enumerate(box))
    return d, h, w


def _find_first_scribble(slices: npt.NDArray[np.uint8]) -> int | None:
    """Find the first slice that contains a structure."""
    for number, values in enumerate(slices):
        if ((values > 0) & (values != UNANNOTATED)).any():
            return number
    return None
