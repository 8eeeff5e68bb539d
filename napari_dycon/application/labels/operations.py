"""Operations of the annotation tools: what they compute, and what they tell the user afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from napari_dycon.annotation import interpolation, random_walker
from napari_dycon.core.boxes import bounding_box
from napari_dycon.core.types import UNANNOTATED, Array, Box, ItemProgressCallback, LabelArray
from napari_dycon.core.volumes import format_ml, voxel_volume_ml
from napari_dycon.engine.evaluation.label_comparison import count_label_values
from napari_dycon.errors import UserError

MAX_NAMED = 3  # structures in a message
PLANE_NAMES = ("axial", "coronal", "sagittal")  # by the axis along which slices are browsed


@dataclass(frozen=True)
class LabelEdit:
    """An edit of the label: a box before and after, and a message that describes it."""

    box: Box
    before: LabelArray
    after: LabelArray
    message: str = ""


@dataclass(frozen=True)
class Operation:
    """A computation on a copy of the label.

    Attributes
    ----------
    title : shown while it runs, as in "Interpolating slices"
    compute : returns the new label; it may report progress
    describe : returns a message from the label before and after; called in the background
    nothing : message if nothing changed
    """

    title: str
    compute: Callable[[LabelArray, ItemProgressCallback], LabelArray]
    describe: Callable[[LabelArray, LabelArray], str]
    nothing: str

    def run(self, label: LabelArray, progress: ItemProgressCallback) -> LabelEdit | None:
        """Compute the edit; ``None`` if nothing changes."""
        new = self.compute(label, progress)
        box = bounding_box(new != label)
        if box is None:
            return None
        return LabelEdit(box, label[box], new[box], self.describe(label, new))


@dataclass(frozen=True)
class LabelContext:
    """What messages need to know of a case: names of the structures by value, voxel size."""

    names: Mapping[int, str]
    spacing_mm: Sequence[float]

    def describe_volumes(self, label: LabelArray, values: Sequence[int]) -> str:
        """Describe the volumes of structures, as in "left atrium now 28.1 ml"."""
        voxel_ml = voxel_volume_ml(self.spacing_mm)
        counts = count_label_values(label)
        present = [value for value in values if counts[value]]
        texts = [
            f"{self.names.get(value, value)} now {format_ml(int(counts[value]) * voxel_ml)} ml"
            for value in present[:MAX_NAMED]
        ]
        if len(present) > MAX_NAMED:
            texts.append(f"{len(present) - MAX_NAMED} more")
        return ", ".join(texts)


def make_interpolation(
    context: LabelContext, values: Sequence[int], axis: int, image: Array | None
) -> Operation:
    """Make the operation that interpolates structures between annotated slices.

    With ``image``, interpolated borders follow its edges where slices are far apart.
    """

    def compute(label: LabelArray, progress: ItemProgressCallback) -> LabelArray:
        n_stages, n_slices = (1, 1) if image is None else (2, 1)

        def report_slice(done: int, total: int, name: str) -> None:
            nonlocal n_slices
            n_slices = total
            progress(done, n_stages * total, name)

        new, n_changed = interpolation.fill_between(
            label, values, axis, context.spacing_mm, report_slice
        )
        if not n_changed:
            raise UserError(_explain_no_gaps(label, values, axis))
        if image is None:
            return new
        progress(n_slices, n_stages * n_slices, "following edges")
        return random_walker.refine_to_edges(image, label, new, axis, context.spacing_mm)

    def describe(before: LabelArray, after: LabelArray) -> str:
        n_filled = count_changed_slices(before, after, axis)
        slices = "1 slice" if n_filled == 1 else f"{n_filled} slices"
        return f"Filled {slices}: {context.describe_volumes(after, values)}."

    return Operation("Interpolating slices", compute, describe, "Nothing to interpolate.")


def _explain_no_gaps(label: LabelArray, values: Sequence[int], axis: int) -> str:
    """Say what is missing for an interpolation, or in which view it is possible."""
    others = [a for a in range(3) if a != axis and interpolation.has_gaps(label, values, a)]
    if others:
        planes = " or ".join(PLANE_NAMES[a] for a in others)
        return (
            f"Nothing to interpolate between {PLANE_NAMES[axis]} slices. Scroll in the {planes} "
            "view, then interpolate again."
        )
    return (
        f"Nothing to interpolate: paint the structure in two {PLANE_NAMES[axis]} slices with "
        "unannotated slices between them."
    )


def count_changed_slices(before: LabelArray, after: LabelArray, axis: int) -> int:
    """Count the slices along an axis in which structures were added or removed."""
    is_changed = (before != after) & ((after != 0) | (before != UNANNOTATED))
    other_axes = tuple(a for a in range(3) if a != axis)
    return int(is_changed.any(axis=other_axes).sum())
