"""Filling between annotated slices by their shapes.

Shape-based interpolation (Raya and Udupa, 1990): the signed distances to two outlines are mixed in
the slices between them, and what is positive lies inside. Where both slices show one piece, the
pieces are moved onto each other first, so that a structure running obliquely is not lost halfway.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_dycon.project.models import UNANNOTATED

Label = npt.NDArray[np.uint8]
Distances = npt.NDArray[np.float32]
MARGIN = 2  # voxels around two outlines in which is computed


def fill_between(
    label: Label, values: Sequence[int], axis: int, spacing: Sequence[float]
) -> tuple[Label, int]:
    """Fill the slices between annotated ones; returns the new label and how many slices it filled.

    Only voxels that nobody annotated are written, never another structure or background that was
    painted. Slices count as annotated where they show the structure, and where every voxel of
    them is annotated. Between two complete slices of which all structures are among ``values``, the
    rest becomes background, so that the filled slices are complete too.

    Parameters
    ----------
    label : (D, H, W), 255 where nobody annotated
    values : structures to fill
    axis : across whose slices
    spacing : in mm, of the three axes
    """
    result = label.copy()
    slices = np.moveaxis(result, axis, 0)  # a view
    plane = [float(s) for a, s in enumerate(spacing) if a != axis]
    complete = ~(slices == UNANNOTATED).any(axis=(1, 2))
    inside = {v: [slices[i] == v for i in range(len(slices))] for v in values}
    shows = {v: np.array([part.any() for part in inside[v]]) for v in values}
    best: dict[int, Distances] = {}  # slice -> largest distance so far
    winner: dict[int, Label] = {}
    for value in values:
        keys = np.flatnonzero(shows[value] | complete)
        for first, last in itertools.pairwise(keys.tolist()):
            if last - first < 2 or not (shows[value][first] and shows[value][last]):
                continue
            between = _shapes_between(
                inside[value][first], inside[value][last], last - first, plane
            )
            for number, depth in enumerate(between, start=first + 1):
                if number not in best:
                    best[number] = np.zeros(depth.shape, np.float32)
                    winner[number] = np.zeros(depth.shape, np.uint8)
                better = depth > best[number]
                best[number][better] = depth[better]
                winner[number][better] = value
    for number, value_of in winner.items():
        free = slices[number] == UNANNOTATED
        chosen = free & (value_of > 0)
        slices[number][chosen] = value_of[chosen]
    for number in winner:
        if _between_complete(number, complete, slices, values):
            part = slices[number]
            part[part == UNANNOTATED] = 0
    return result, len(winner)


def copy_slice(label: Label, value: int, axis: int, source: int, target: int) -> Label:
    """Copy a structure from one slice into what nobody annotated in another."""
    result = label.copy()
    slices = np.moveaxis(result, axis, 0)
    free = slices[target] == UNANNOTATED
    slices[target][free & (slices[source] == value)] = value
    return result


def _between_complete(
    number: int, complete: npt.NDArray[np.bool_], slices: Label, values: Sequence[int]
) -> bool:
    """Whether the next complete slices on both sides show no structure but ``values``."""
    before, after = np.flatnonzero(complete[:number]), np.flatnonzero(complete[number + 1 :])
    if not len(before) or not len(after):
        return False
    ends = slices[before[-1]], slices[number + 1 + after[0]]
    return all(set(np.unique(end).tolist()) <= {0, *values} for end in ends)


def _shapes_between(
    first: npt.NDArray[np.bool_], last: npt.NDArray[np.bool_], steps: int, plane: Sequence[float]
) -> list[Distances]:
    """Mixed signed distances of ``steps - 1`` slices between two outlines, each (H, W)."""
    box = _box(first | last)
    one, two = first[box], last[box]
    shift = _offset(one, two)
    near, far = signed_distance(one, plane), signed_distance(two, plane)
    result = []
    for step in range(1, steps):
        t = step / steps
        mixed = (1 - t) * _moved(near, t * shift) + t * _moved(far, (t - 1) * shift)
        whole = np.full(first.shape, -np.inf, np.float32)
        whole[box] = mixed
        result.append(whole)
    return result


def signed_distance(mask: npt.NDArray[np.bool_], spacing: Sequence[float]) -> Distances:
    """Distance to the mask's border in the spacing's unit: positive inside, negative outside."""
    half = 0.5 * min(spacing)  # the border runs between voxels
    inner = ndimage.distance_transform_edt(mask, sampling=spacing)
    outer = ndimage.distance_transform_edt(~mask, sampling=spacing)
    distance: Distances = np.where(mask, inner - half, half - outer).astype(np.float32)
    return distance


def _offset(one: npt.NDArray[np.bool_], two: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """How far the piece moves from one slice to the other; nothing where there are several."""
    if ndimage.label(one)[1] != 1 or ndimage.label(two)[1] != 1:
        return np.zeros(2)
    offset: npt.NDArray[np.float64] = np.subtract(
        ndimage.center_of_mass(two), ndimage.center_of_mass(one)
    )
    return offset


def _moved(distance: Distances, shift: npt.NDArray[np.float64]) -> Distances:
    if not shift.any():
        return distance
    moved: Distances = ndimage.shift(distance, shift, order=1, mode="nearest")
    return moved


def _box(mask: npt.NDArray[np.bool_]) -> tuple[slice, ...]:
    found: Any = ndimage.find_objects(mask.astype(np.uint8))[0]
    return tuple(
        slice(max(part.start - MARGIN, 0), min(part.stop + MARGIN, size))
        for part, size in zip(found, mask.shape, strict=True)
    )
