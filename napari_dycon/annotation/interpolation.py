"""Shape-based interpolation between annotated slices (Raya and Udupa, 1990).

The signed distances to two outlines are interpolated in the slices between them; positive values
are inside. If both outlines have a single connected component, their centroids are first aligned,
so that oblique structures keep their shape.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_dycon.core.boxes import bounding_box
from napari_dycon.core.types import UNANNOTATED, ItemProgressCallback, LabelArray

Distances = npt.NDArray[np.float32]
MARGIN_VOXELS = 2  # margin around the outlines
TAPERED_FRACTION = 0.8  # of the squared radius from slice to slice: the structure is ending


@dataclass(frozen=True)
class _Gap:
    """Slices of one structure to fill, between ``first`` and ``last``; one may be without it."""

    value: int
    first: int
    last: int
    is_inner: bool  # both contain the structure


def fill_between(
    label: LabelArray,
    values: Sequence[int],
    axis: int,
    spacing: Sequence[float],
    on_progress: ItemProgressCallback | None = None,
) -> tuple[LabelArray, int]:
    """Fill the slices between annotated slices.

    Only unannotated voxels are written, never other structures or annotated background. A slice
    counts as annotated if it contains the structure, or if all of its voxels are annotated; lines
    where slices of other planes cross it do not count. Towards
    a complete slice without the structure, the structure tapers off, and the remaining voxels stay
    unannotated. Between two slices with the structure, they become background if the nearest
    complete slices have no structures but ``values``, so that the filled slices are complete too.

    Parameters
    ----------
    label : (D, H, W), 255 in unannotated voxels
    values : class values of the structures to fill
    axis : axis along which slices are interpolated
    spacing : voxel size in mm
    on_progress : called after each slice

    Returns
    -------
    The new label and the number of changed slices.
    """
    result = label.copy()
    slices = np.moveaxis(result, axis, 0)  # a view
    slice_spacing = [float(s) for a, s in enumerate(spacing) if a != axis]
    is_complete = ~(slices == UNANNOTATED).any(axis=(1, 2))
    gaps = _find_gaps(slices, values, is_complete)
    n_slices = sum(gap.last - gap.first - 1 for gap in gaps)
    best_distance: dict[int, Distances] = {}  # slice -> largest distance so far
    best_value: dict[int, LabelArray] = {}
    n_done = 0
    for gap in gaps:
        for number, distance in _interpolate_gap(gap, slices, slice_spacing, float(spacing[axis])):
            if number not in best_distance:
                best_distance[number] = np.zeros(distance.shape, np.float32)
                best_value[number] = np.zeros(distance.shape, np.uint8)
            better = distance > best_distance[number]
            best_distance[number][better] = distance[better]
            best_value[number][better] = gap.value
            n_done += 1
            if on_progress is not None:
                on_progress(n_done, n_slices, f"slice {n_done} of {n_slices}")
    for number, value_of in best_value.items():
        chosen = (slices[number] == UNANNOTATED) & (value_of > 0)
        slices[number][chosen] = value_of[chosen]
    inner = {n for gap in gaps if gap.is_inner for n in range(gap.first + 1, gap.last)}
    for number in inner:
        if _is_closed_gap(number, is_complete, slices, values):
            part = slices[number]
            part[part == UNANNOTATED] = 0
    before = np.moveaxis(label, axis, 0)
    return result, sum(not np.array_equal(slices[n], before[n]) for n in best_value)


def has_gaps(label: LabelArray, values: Sequence[int], axis: int) -> bool:
    """Whether there are slices to fill between annotated slices along an axis."""
    slices = np.moveaxis(label, axis, 0)
    return bool(_find_gaps(slices, values, ~(slices == UNANNOTATED).any(axis=(1, 2))))


def _find_gaps(
    slices: LabelArray, values: Sequence[int], is_complete: npt.NDArray[np.bool_]
) -> list[_Gap]:
    """Find the gaps between annotated slices of which one or both contain a structure."""
    is_own = _find_own_voxels(slices)
    gaps = []
    for value in values:
        is_structure = slices == value
        contains = is_structure.any(axis=(1, 2))
        is_drawn = (is_structure & is_own).any(axis=(1, 2)) | (is_complete & contains)
        # A structure as thin as the lines of crossing slices is taken as it is.
        has_structure = is_drawn if is_drawn.any() else contains
        key_slices = np.flatnonzero(has_structure | is_complete).tolist()
        gaps += [
            _Gap(value, first, last, bool(has_structure[first] and has_structure[last]))
            for first, last in itertools.pairwise(key_slices)
            if last - first > 1 and (has_structure[first] or has_structure[last])
        ]
    return gaps


def _find_own_voxels(slices: LabelArray) -> npt.NDArray[np.bool_]:
    """Find the voxels that were annotated in slices along the first axis.

    An annotated slice of another plane crosses all of these slices in a line that is one voxel
    wide. Its voxels have annotated neighbors in the slices before or after, and are in no 2 x 2
    block of annotated voxels of their own slice.
    """
    is_annotated = slices != UNANNOTATED
    # Complete slices of the other planes may be side by side.
    is_crossing = [is_annotated.all(axis=axes, keepdims=True) for axes in ((0, 2), (0, 1))]
    is_annotated &= ~(is_crossing[0] | is_crossing[1])
    before, after = np.zeros_like(is_annotated), np.zeros_like(is_annotated)
    before[1:], after[:-1] = is_annotated[:-1], is_annotated[1:]
    is_own: npt.NDArray[np.bool_] = is_annotated & ~before & ~after
    corners = is_annotated[:, :-1] & is_annotated[:, 1:]
    blocks = corners[:, :, :-1] & corners[:, :, 1:]
    for rows, columns in itertools.product((slice(None, -1), slice(1, None)), repeat=2):
        is_own[:, rows, columns] |= blocks
    return is_own


def copy_slice(label: LabelArray, value: int, axis: int, source: int, target: int) -> LabelArray:
    """Copy a structure from one slice to the unannotated voxels of another."""
    result = label.copy()
    slices = np.moveaxis(result, axis, 0)
    free = slices[target] == UNANNOTATED
    slices[target][free & (slices[source] == value)] = value
    return result


def _is_closed_gap(
    number: int, is_complete: npt.NDArray[np.bool_], slices: LabelArray, values: Sequence[int]
) -> bool:
    """Check that the nearest complete slices on both sides have only structures of ``values``."""
    before, after = np.flatnonzero(is_complete[:number]), np.flatnonzero(is_complete[number + 1 :])
    if not len(before) or not len(after):
        return False
    ends = slices[before[-1]], slices[number + 1 + after[0]]
    return all(set(np.unique(end).tolist()) <= {0, *values} for end in ends)


def _interpolate_gap(
    gap: _Gap, slices: LabelArray, spacing: Sequence[float], step_mm: float
) -> Iterator[tuple[int, Distances]]:
    """Yield the numbers of the slices in a gap with their signed distances."""
    first, last = slices[gap.first] == gap.value, slices[gap.last] == gap.value
    steps, numbers = gap.last - gap.first, range(gap.first + 1, gap.last)
    if gap.is_inner:
        yield from zip(numbers, _interpolate_sdf(first, last, steps, spacing), strict=True)
        return
    # From the last slice with the structure towards the empty one.
    if first.any():
        inward, outward = slices[gap.first :: -1], numbers
    else:
        inward, outward = slices[gap.last :], numbers[::-1]
    masks = list(itertools.takewhile(np.any, (inward[:3] == gap.value)))
    yield from zip(outward, _taper_sdf(masks, steps, spacing, step_mm), strict=True)


def _interpolate_sdf(
    first: npt.NDArray[np.bool_],
    last: npt.NDArray[np.bool_],
    steps: int,
    spacing: Sequence[float],
) -> Iterator[Distances]:
    """Interpolate the signed distances of the ``steps - 1`` slices between two masks (H, W)."""
    box = bounding_box(first | last, MARGIN_VOXELS)
    assert box is not None
    one, two = first[box], last[box]
    shift = _centroid_shift(one, two)
    first_distance, last_distance = signed_distance(one, spacing), signed_distance(two, spacing)
    for step in range(1, steps):
        t = step / steps
        mixed = (1 - t) * _translate(first_distance, t * shift) + t * _translate(
            last_distance, (t - 1) * shift
        )
        full = np.full(first.shape, -np.inf, np.float32)
        full[box] = mixed
        yield full


def _taper_sdf(
    masks: Sequence[npt.NDArray[np.bool_]], steps: int, spacing: Sequence[float], step_mm: float
) -> Iterator[Distances]:
    """Taper a structure off over the ``steps - 1`` slices beyond its last one.

    The end is half an ellipsoid. It reaches halfway to the empty slice, as the true end lies
    somewhere between, but no further than the inner radius, since a far empty slice tells little.

    Parameters
    ----------
    masks : (H, W), the last slice with the structure and up to two before it
    """
    box = bounding_box(masks[0], MARGIN_VOXELS)
    assert box is not None
    distance = signed_distance(masks[0][box], spacing)
    radius = float(distance.max())
    reach_mm = min(0.5 * steps * step_mm, radius)
    if len(masks) == 3 and _has_tapered_off(masks, spacing):
        reach_mm = 0.0
    for step in range(1, steps):
        full = np.full(masks[0].shape, -np.inf, np.float32)
        if step * step_mm < reach_mm:
            position = step * step_mm / reach_mm
            full[box] = distance - radius * (1 - np.sqrt(1 - position**2))
        yield full


def _has_tapered_off(masks: Sequence[npt.NDArray[np.bool_]], spacing: Sequence[float]) -> bool:
    """Whether a structure that goes on as in its last three slices ends within the next one.

    Otherwise each further interpolation would make the end that the one before made longer. The
    squares of the radii of an ellipsoid lie on a parabola.
    """
    last, before, first = (float(signed_distance(mask, spacing).max()) ** 2 for mask in masks)
    return 3 * last - 3 * before + first <= 0 or last < TAPERED_FRACTION * before


def signed_distance(mask: npt.NDArray[np.bool_], spacing: Sequence[float]) -> Distances:
    """Compute the signed distance to the boundary of a mask, positive inside."""
    half = 0.5 * min(spacing)  # the boundary is halfway between voxels
    inner = ndimage.distance_transform_edt(mask, sampling=spacing)
    outer = ndimage.distance_transform_edt(~mask, sampling=spacing)
    distance: Distances = np.where(mask, inner - half, half - outer).astype(np.float32)
    return distance


def _centroid_shift(
    one: npt.NDArray[np.bool_], two: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Compute the centroid shift between two masks; zero unless both have a single component."""
    if ndimage.label(one)[1] != 1 or ndimage.label(two)[1] != 1:
        return np.zeros(2)
    shift: npt.NDArray[np.float64] = np.subtract(
        ndimage.center_of_mass(two), ndimage.center_of_mass(one)
    )
    return shift


def _translate(distance: Distances, shift: npt.NDArray[np.float64]) -> Distances:
    if not shift.any():
        return distance
    translated: Distances = ndimage.shift(distance, shift, order=1, mode="nearest")
    return translated
