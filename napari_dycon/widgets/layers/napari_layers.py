"""Layers that extend napari's through its private parts, for version 0.9.

As in ``napari_internals``, napari may change these without notice: an update of napari is checked
against both modules.
"""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from napari._vispy.overlays.labels_polygon import VispyLabelsPolygonOverlay
from napari._vispy.utils.visual import overlay_to_visual
from napari.components.overlays import LabelsPolygonOverlay
from napari.layers import Image, Labels, Layer, Surface
from napari.utils.events import Event
from pydantic import Field

from napari_dycon.core.types import Box, LabelArray, Mask

OUTLINE_FILL = 0.15  # opacity inside an outline that is being drawn
OUTLINE_WIDTH_PX = 2.0
MAX_COMPARED_VOXELS = 1_000_000  # of an edit, to find which values it wrote


@dataclass(frozen=True)
class LabelEdit:
    """One step of undo.

    Attributes
    ----------
    box : the voxels it may have changed
    value : the value it wrote; ``None`` if there are several
    """

    box: Box
    value: int | None


class NapariTypeMixin:
    """Reports the type of the napari layer that a class extends.

    napari selects writers and icons by this name, which is otherwise the name of the class.
    """

    napari_type: ClassVar[str]

    @property
    def _type_string(self) -> str:
        return self.napari_type


class StatusTextMixin:
    """Lets the program describe a position in napari's status bar.

    napari calls ``get_status`` in a thread of its own.
    """

    describe_position: Callable[[Sequence[float]], str] | None = None  # world coordinates

    def get_status(self, position: Any = None, **settings: Any) -> Any:
        """Return the text for a position, or that of napari if no function describes it."""
        if self.describe_position is None or position is None:
            return super().get_status(position, **settings)  # type: ignore[misc]
        return self.describe_position(position)


class OutlineOverlay(LabelsPolygonOverlay):
    """The outline that the polygon tool draws."""

    points: list[list[float]] = Field(default_factory=list)

    def add_polygon_to_labels(self, layer: Labels) -> None:
        """Paint the closed outline in the slice that is displayed, also if it began in another."""
        displayed = layer._slice_input.displayed
        position = layer._data_slice.point
        self.points = [
            [
                coordinate if axis in displayed else float(position[axis])
                for axis, coordinate in enumerate(point)
            ]
            for point in self.points
        ]
        super().add_polygon_to_labels(layer)

    def remove_last_point(self) -> bool:
        """Remove the point that was clicked last; returns whether there was one.

        The last of ``points`` follows the mouse.
        """
        if not self.points:
            return False
        self.points = [*self.points[:-2], self.points[-1]] if len(self.points) > 2 else []
        return True


class VispyOutline(VispyLabelsPolygonOverlay):
    """Draws an outline whose inside stays visible; napari fills it like the label."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._polygon._border_width = OUTLINE_WIDTH_PX

    def _set_color(self, color: Sequence[float]) -> None:
        super()._set_color((*color[:3], min(color[3], OUTLINE_FILL)))


overlay_to_visual[OutlineOverlay] = VispyOutline


class CaseImage(StatusTextMixin, NapariTypeMixin, Image):
    """One channel of a scan."""

    napari_type = "image"


class StructureSurface(NapariTypeMixin, Surface):
    """Surfaces of structures; a separate class, so that views of slices can exclude it."""

    napari_type = "surface"


class ExtensibleLabels(StatusTextMixin, NapariTypeMixin, Labels):
    """Labels layer that exposes painting, editability and undo history to subclasses."""

    napari_type = "labels"
    is_read_only = False  # subclasses set it before the constructor of napari runs

    def __init__(self, data: Any, **settings: Any) -> None:
        super().__init__(data, **settings)
        del self._overlays["polygon"]  # an assignment alone would keep it
        self._overlays["polygon"] = OutlineOverlay(visible=True)
        # The layers of all views over the same voxels; an outline is drawn in one of them.
        self.views: weakref.WeakSet[ExtensibleLabels] = weakref.WeakSet([self])
        # napari reports strokes, but not undo, redo and edits by a program.
        self.events.add(edited=Event)

    def remove_last_point(self) -> bool:
        """Remove the last point of an unfinished outline; returns whether there was one."""
        return any(layer._overlays["polygon"].remove_last_point() for layer in self.views)

    def undo(self) -> None:
        """Remove the last point of an unfinished outline, or undo one step and emit ``edited``."""
        if self.remove_last_point():
            return
        super().undo()
        self.on_history_changed()
        self.events.edited()

    def redo(self) -> None:
        """Redo one step and emit ``edited``."""
        super().redo()
        self.on_history_changed()
        self.events.edited()

    def paint_mask(self, data: Any, mask: Any, value: int, region: Box) -> Any:
        """Write ``value`` where ``mask`` is set; brush, bucket and polygon all use this method."""
        return super()._apply_mask_to_data(data, mask, value, region)

    @contextlib.contextmanager
    def without_preserving(self) -> Iterator[None]:
        """Suspend napari's *preserve labels*, which takes only the value 0 for unlabeled."""
        was_preserving = bool(self.preserve_labels)
        self._preserve_labels = False  # without an event, which controls of napari would follow
        try:
            yield
        finally:
            self._preserve_labels = was_preserving

    def record_edit(self, region: Box, old_values: LabelArray, new_values: LabelArray) -> None:
        """Add one step to the undo history."""
        self._save_history((region, old_values, new_values))

    def clear_history(self) -> None:
        """Forget all undo and redo steps."""
        self._staged_history.clear()
        self._undo_history.clear()
        self._redo_history.clear()
        self.on_history_changed()

    def on_history_changed(self) -> None:
        """Act on a new, an undone or a redone step."""

    def read_history(self) -> tuple[LabelEdit | None, LabelEdit | None]:
        """Return what the next undo and the next redo would change."""
        undone, redone = (
            _summarize(history[-1]) if history else None
            for history in (self._undo_history, self._redo_history)
        )
        return undone, redone

    def _append_to_undo_history(self, item: Any) -> None:
        super()._append_to_undo_history(item)
        self.on_history_changed()

    def draw_outline(
        self,
        labels: LabelArray,
        is_outline: Mask,
        origin: Sequence[int],  # noqa: ARG002 - for subclasses
    ) -> Any:
        """Return the values to display in a part of a slice, if ``contour`` is above zero.

        Parameters
        ----------
        labels : (h, w), values of the part
        is_outline : (h, w), voxels at the border of a structure
        origin : indices of the first voxel of the part in the displayed slice
        """
        return np.where(is_outline, labels, 0).astype(labels.dtype)

    def reject_value(self, value: int) -> bool:  # noqa: ARG002 - for subclasses
        """Whether a value cannot be painted; then it does not become the selected one."""
        return False

    @property
    def selected_label(self) -> int:
        """Value that is painted."""
        return int(super().selected_label)

    @selected_label.setter
    def selected_label(self, value: int) -> None:
        if not self.reject_value(value):
            Labels.selected_label.fset(self, value)

    def replace_array(self, data: LabelArray) -> None:
        """Show another array, even where ``data`` cannot be assigned."""
        Labels.data.fset(self, data)

    @property
    def finest_painted_spacing(self) -> float:
        """Smallest voxel size among the axes that the brush paints, in world units."""
        painted_axes = self._slice_input.order[-self.n_edit_dimensions :]
        return float(min(abs(self.scale[axis]) for axis in painted_axes))

    def _calculate_contour(self, labels: Any, data_slice: tuple[slice, ...]) -> Any:
        if self.contour < 1 or labels.ndim != 2:  # napari warns about contours in 3D
            return None
        part, inner, origin = [], [], []
        for span, size in zip(data_slice, labels.shape, strict=True):
            start = max(span.start - self.contour, 0)
            part.append(slice(start, min(span.stop + self.contour, size)))
            inner.append(slice(span.start - start, span.stop - start))
            origin.append(start)
        values = np.asarray(labels[tuple(part)])
        drawn = self.draw_outline(values, find_borders(values, self.contour), origin)
        return drawn[tuple(inner)]

    def _apply_mask_to_data(self, data: Any, mask: Any, new_label: int, volume_slice: Box) -> Any:
        return self.paint_mask(data, mask, new_label, volume_slice)

    def _reset_editable(self) -> None:
        super()._reset_editable()
        if self.is_read_only:
            self.editable = False


def _summarize(step: Sequence[Any]) -> LabelEdit:
    """Summarize a step of napari's history, a list of masked or of indexed edits."""
    boxes, values = [], set()
    for atom in step:
        indices, is_masked = atom[0], hasattr(atom, "mask")
        boxes.append([_find_span(index) for index in indices])
        values |= {int(atom.new_value)} if is_masked else _list_written(atom[1], atom[2])
    spans = (
        slice(min(span[0] for span in axis), max(span[1] for span in axis))
        for axis in zip(*boxes, strict=True)
    )
    return LabelEdit(tuple(spans), values.pop() if len(values) == 1 else None)


def _find_span(index: Any) -> tuple[int, int]:
    """Return the first index and the one after the last, of a slice or an array."""
    if isinstance(index, slice):
        return int(index.start), int(index.stop)
    return int(np.min(index)), int(np.max(index)) + 1


def _list_written(old_values: Any, new_values: Any) -> set[int]:
    """List the values that were written where there were others; two suffice."""
    new_array = np.asarray(new_values)
    if new_array.ndim == 0:
        return {int(new_array)}
    if new_array.size > MAX_COMPARED_VOXELS:
        return {-1, -2}  # several, without comparing
    changed = new_array[np.asarray(old_values) != new_array]
    return set(itertools.islice((int(v) for v in np.flatnonzero(np.bincount(changed))), 2))


def find_borders(labels: npt.NDArray[Any], thickness: int) -> Mask:
    """Voxels ``(h, w)`` next to another value, up to ``thickness`` voxels away from it.

    Comparisons of shifted arrays take a tenth of the time of napari's morphological filters.
    """
    is_border = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        first, second = (
            tuple(span if a == axis else slice(None) for a in (0, 1))
            for span in (slice(None, -1), slice(1, None))
        )
        differs = labels[first] != labels[second]
        is_border[first] |= differs
        is_border[second] |= differs
    for _ in range(thickness - 1):
        wider = is_border.copy()
        wider[1:] |= is_border[:-1]
        wider[:-1] |= is_border[1:]
        wider[:, 1:] |= is_border[:, :-1]
        wider[:, :-1] |= is_border[:, 1:]
        is_border = wider
    return is_border


def set_locked(layer: Layer, is_locked: bool) -> None:
    """Lock a layer against deletion and conversion by napari's menus (new in napari 0.9)."""
    layer.locked = is_locked


def omit_drawing_visuals(layer: Labels) -> None:
    """Spare a layer the visuals of polygons and strokes, since it is not drawn in.

    They take napari half of the time to add a layer of labels to a view.
    """
    for name in ("polygon", "brush_stroke"):
        layer._overlays[name].visible = False


def share_history(source: Labels, target: Labels) -> None:
    """Let two layers over the same voxels share one undo history."""
    target._undo_history, target._redo_history = source._undo_history, source._redo_history
    if isinstance(source, ExtensibleLabels) and isinstance(target, ExtensibleLabels):
        target.views = source.views
        target.views.add(target)
