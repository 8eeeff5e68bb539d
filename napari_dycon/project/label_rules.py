"""Validation of label values, and the status of a case that follows from its label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from napari_dycon import io
from napari_dycon.core.types import UNANNOTATED, Array
from napari_dycon.errors import LabelError
from napari_dycon.project.models import ClassInfo, Status


def check_values(array: Array, classes: Sequence[ClassInfo], description: str) -> None:
    """Reject a label with fractions or classes that are unknown to the project."""
    if array.dtype.kind == "f" and np.any(array != np.rint(array)):
        raise LabelError(
            f"{description} contains fractions; expected whole numbers, one per class."
        )
    present = set(find_values(array)) - {0, UNANNOTATED}
    known = {c.value for c in classes}
    if present - known:
        names = ", ".join(f"{c.value} ({c.name})" for c in classes)
        unknown = ", ".join(map(str, sorted(present - known)))
        raise LabelError(
            f"{description} contains the unknown class {unknown}; "
            f"expected 0 (background), {names}, or 255 (not annotated). Add the class to the "
            "project (with new: name it in --classes), or correct the label."
        )


def find_values(array: Array) -> list[int]:
    """List the values of a label in ascending order, fast where neighbors are mostly equal."""
    if array.dtype == np.uint8 and array.flags.c_contiguous and array.size and not array.size % 8:
        words = array.reshape(-1).view(np.uint64)  # eight voxels each
        is_new = np.ones(len(words), bool)
        np.not_equal(words[1:], words[:-1], out=is_new[1:])
        array = words[is_new].view(np.uint8)
    return [int(value) for value in np.unique(array)]


def remap_values(array: Array, value_map: Mapping[int, int]) -> Array:
    """Replace values by others simultaneously."""
    table = np.arange(256, dtype=np.uint8)
    for old, new in value_map.items():
        table[old] = new
    remapped: Array = table[array]
    return remapped


def compute_label_status(array: Array) -> Status:
    """Compute the status that follows from a label: unlabeled, in progress or labeled."""
    is_unannotated = array == UNANNOTATED
    if is_unannotated.all():
        return Status.UNLABELED
    return Status.IN_PROGRESS if is_unannotated.any() else Status.LABELED


def get_next_status(
    current: Status, label_status: Status, explicit_status: Status | None = None
) -> Status:
    """Determine the status of a case after its label is saved.

    Parameters
    ----------
    current : status of the case in ``project.json``
    label_status : status that follows from the label, see ``compute_label_status``
    explicit_status : status requested by the caller; it takes precedence

    Returns
    -------
    status; a reviewed case stays reviewed as long as all of it is annotated
    """
    if explicit_status is not None:
        return explicit_status
    if current is Status.REVIEWED and label_status is Status.LABELED:
        return Status.REVIEWED
    return label_status


def present_values(files: Sequence[Path]) -> list[int]:
    """List the class values that occur in label files, without background and 255."""
    values: set[int] = set()
    for file in files:
        values |= set(find_values(io.read_label(file).array))
    return sorted(values - {0, UNANNOTATED})
