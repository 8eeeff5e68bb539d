"""Shape-based interpolation between annotated slices (Raya and Udupa, 1990).

The signed distances to two outlines are interpolated in the slices between them; positive values
are inside. If both outlines have a single connected component, their centroids are first aligned,
so that oblique structures keep their shape.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_dycon.core.boxes import bounding_box
from napari_dycon.core.types import UNANNOTATED, LabelArray

Distances = npt.NDArray[np.float32]
MARGIN_VOXELS = 2  # margin around the outlines


def fill_between(
    label: LabelArray, values: Sequence[int], axis: int, spacing: Sequence[float]
) -> tuple[LabelArray, int]:
    """Fill the slices between annotated slices.

    Only unannotated voxels are written, never other structures or annotated background. A slice
    counts as annotated if it contains the structure, or if all of its voxels are annotated. Between
    two complete slices whose structures are all among ``values``, the remaining voxels become
    background, so that the filled slices are complete as well.

    Parameters
    ----------
    label : (D, H, W), 255 in unannotated voxels
    values : class values of the structures to fill
    axis : axis along which slices are interpolated
    spacing : voxel size in mm

    Returns
    -------
    The new label and the number of filled slices.
    """
    result = label.copy()
    slices = np.moveaxis(result, axis, 0)  # a view
    slice_spacing = [float(s) for a, s in enumerate(spacing) if a != axis]
    is_complete = ~(slices == UNANNOTATED).any(axis=(1, 2))
    masks = {v: [slices[i] == v for i in range(len(slices))] for v in values}
    has_structure = {v: np.array([part.any() for part in masks[v]]) for v in values}
    best_distance: dict[int, Distances] = {}  # slice -> largest distance so far
    best_value: dict[int, LabelArray] = {}
    for value in values:
        key_slices = np.flatnonzero(has_structure[value] | is_complete)
        for first, last in itertools.pairwise(key_slices.tolist()):
            if last - first < 2 or not (has_structure[value][first] and has_structure[value][last]):
                continue
            distances = _interpolate_sdf(
                masks[value][first], masks[value][last], last - first, slice_spacing
            )
            for number, distance in enumerate(distances, start=first + 1):
                if number not in best_distance:
                    best_distance[number] = np.zeros(distance.shape, np.float32)
                    best_value[number] = np.zeros(distance.shape, np.uint8)
                better = distance > best_distance[number]
                best_distance[number][better] = distance[better]
                best_value[number][better] = value
    for number, value_of in best_value.items():
        free = slices[number] == UNANNOTATED
        chosen = free & (value_of > 0)
        slices[number][chosen] = value_of[chosen]
    for number in best_value:
        if _is_closed_gap(number, is_complete, slices, values):
            part = slices[number]
            part[part == UNANNOTATED] = 0
    return result, len(best_value)


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


def _interpolate_sdf(
    first: npt.NDArray[np.bool_], last: npt.NDArray[np.bool_], steps: int, spacing: Sequence[float]
) -> list[Distances]:
    """Interpolate the signed distances of the ``steps - 1`` slices between two masks (H, W)."""
    box = bounding_box(first | last, MARGIN_VOXELS)
    assert box is not None
    one, two = first[box], last[box]
    shift = _centroid_shift(one, two)
    first_distance, last_distance = signed_distance(one, spacing), signed_distance(two, spacing)
    result = []
    for step in range(1, steps):
        t = step / steps
        mixed = (1 - t) * _translate(first_distance, t * shift) + t * _translate(
            last_distance, (t - 1) * shift
        )
        full = np.full(first.shape, -np.inf, np.float32)
        full[box] = mixed
        result.append(full)
    return result


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
