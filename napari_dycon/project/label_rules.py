"""What a label may hold, and what follows from it: values, status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from napari_dycon import io
from napari_dycon.core.types import UNANNOTATED, Array
from napari_dycon.errors import LabelError
from napari_dycon.project.models import ClassInfo, Status


def check_values(array: Array, classes: Sequence[ClassInfo], description: str) -> None:
    """Refuse a label that holds fractions or classes unknown to the project."""
    if array.dtype.kind == "f" and np.any(array != np.rint(array)):
        raise LabelError(f"{description} holds fractions; expected whole numbers, one a class.")
    present = {int(v) for v in np.unique(array)} - {0, UNANNOTATED}
    known = {c.value for c in classes}
    if present - known:
        names = ", ".join(f"{c.value} ({c.name})" for c in classes)
        raise LabelError(
            f"{description} holds the unknown class {', '.join(map(str, sorted(present - known)))}; "
            f"expected 0 (background), {names}, or 255 (not annotated). Add the class to the "
            "project, or correct the label."
        )


def remap_values(array: Array, value_map: Mapping[int, int]) -> Array:
    """Replace values by others, all at once."""
    table = np.arange(256, dtype=np.uint8)
    for old, new in value_map.items():
        table[old] = new
    remapped: Array = table[array]
    return remapped


def compute_label_status(array: Array) -> Status:
    """Status that follows from a label: nothing, some or all of it annotated."""
    is_unannotated = array == UNANNOTATED
    if is_unannotated.all():
        return "unlabeled"
    return "in progress" if is_unannotated.any() else "labeled"


def present_values(files: Sequence[Path]) -> list[int]:
    """Class values that occur in label files, without background and 255."""
    values: set[int] = set()
    for file in files:
        values |= {int(v) for v in np.unique(io.read_label(file).array)}
    return sorted(values - {0, UNANNOTATED})
