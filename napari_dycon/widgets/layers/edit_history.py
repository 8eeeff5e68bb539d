"""What the next undo and the next redo of a label would change, in words."""

from __future__ import annotations

from collections.abc import Mapping

from napari_dycon.core.types import UNANNOTATED
from napari_dycon.widgets.layers.napari_layers import LabelEdit

SEVERAL_TEXT = "label edit"


def describe_edit(edit: LabelEdit, axis: int, names: Mapping[int, str]) -> str:
    """Describe an edit, such as "left atrium, slice 45" or "erasing, slices 30–64".

    Parameters
    ----------
    axis : axis along which slices are counted, from 1
    names : names of the structures by value
    """
    what = SEVERAL_TEXT
    if edit.value == 0:
        what = "background"
    elif edit.value == UNANNOTATED:
        what = "erasing"
    elif edit.value is not None:
        what = names.get(edit.value, SEVERAL_TEXT)
    first, last = edit.box[axis].start + 1, edit.box[axis].stop
    return f"{what}, slice {first}" if first == last else f"{what}, slices {first}–{last}"
