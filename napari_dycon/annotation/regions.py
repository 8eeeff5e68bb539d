"""Regions of interest: boxes of voxels made from rectangles that users draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_dycon.core.types import UNANNOTATED, Box
from napari_dycon.errors import UserError


def rectangle_to_box(corners: npt.ArrayLike, axis: int, shape: Sequence[int]) -> Box:
    """Voxels whose centers lie in a rectangle, one slice thick.

    Parameters
    ----------
    corners : (N, 3), in voxels; the rectangle is what lies between the outermost
    axis : across which the rectangle's slice lies
    shape : of the scan, (D, H, W)

    Raises
    ------
    UserError
        Less than two voxels wide, or beside the scan.
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
            raise UserError("That was no rectangle. Hold the mouse button and drag it across.")
        if stop <= 0 or start >= size:
            raise UserError("The rectangle lies beside the scan. Draw it over the scan.")
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
    """Give a rectangle a thickness: from the first to the last slice with strokes, and a margin.

    Strokes are those of structures inside the rectangle; without any, its own slice counts.

    Parameters
    ----------
    rectangle : one slice thick across ``axis``
    label : (D, H, W), 255 where nothing was annotated
    spacing : in mm
    """
    column = list(rectangle)
    column[axis] = slice(None)
    slices = np.moveaxis(label[tuple(column)], axis, 0)
    first, last = _find_first_stroke(slices), _find_first_stroke(slices[::-1])
    size = len(slices)
    margin = round(margin_mm / spacing[axis])
    start = rectangle[axis].start if first is None else first
    stop = rectangle[axis].stop if last is None else size - last
    return with_slice_extent(rectangle, axis, max(start - margin, 0), min(stop + margin, size))


def update_box(box: Box, rectangle: Box, axis: int) -> Box:
    """Draw a rectangle where there is a box already.

    In a slice of the box the rectangle is its new outline; in a slice beyond, the box grows to hold
    both.
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
    """Return the same box, from ``start`` to before ``stop`` across an axis."""
    d, h, w = (slice(start, stop) if a == axis else span for a, span in enumerate(box))
    return d, h, w


def _find_first_stroke(slices: npt.NDArray[np.uint8]) -> int | None:
    """Find the first slice that contains a structure."""
    for number, values in enumerate(slices):
        if ((values > 0) & (values != UNANNOTATED)).any():
            return number
    return None
