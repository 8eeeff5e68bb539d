"""Commands that draw for a person: fill, grow, tidy. One undo step each, never on the main thread.

A command works on a copy of the label in the background. When its answer comes, it is laid over the
label voxel by voxel, and where somebody painted in the meantime the painting stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_dycon.annotation import interpolation, morphology, random_walker
from napari_dycon.annotation.regions import (
    Box,
    bounding_box,
    extrude_rectangle,
    rectangle_to_box,
    update_box,
)
from napari_dycon.application.active_case import CaseView
from napari_dycon.errors import BusyError, UserError

if TYPE_CHECKING:
    from napari_dycon.session import Session

Label = npt.NDArray[np.uint8]
GROW_MARGIN_MM = 25.0
PICK_MM = 2.0  # radius around a click whose gray values make a range
PICK_WIDTH = 2.0  # standard deviations to both sides


@dataclass(frozen=True)
class Change:
    """What a command wants to change: a box of the label before and after."""

    box: Box
    before: Label
    after: Label


class Annotating:
    """Drawing commands of a session; a proposal waits until it is accepted or discarded."""

    proposal_changed = Signal(object)  # (D, H, W) uint8 of what would be added, or None
    busy_changed = Signal(str)  # what is being computed, "" when nothing is
    range_changed = Signal(object)  # (low, high) that painting is limited to, or None
    box_changed = Signal(object)  # Box that growing stays in, or None

    def __init__(self, session: Session) -> None:
        self._session = session
        self.busy = ""
        self._proposal: Change | None = None
        self.paint_range: tuple[float, float] | None = None
        self.box: Box | None = None
        self._box_case = ""  # whose box that is
        session.case_shown.connect(self._case_changed)

    # ---- At once ---------------------------------------------------------------------------

    def fill_between(
        self, values: Sequence[int], axis: int = 0, *, follow_edges: bool = False, channel: int = 0
    ) -> None:
        """Fill structures between annotated slices across an axis.

        With ``refine_to_edges`` the borders of what is filled follow the scan where slices lie far
        apart.
        """
        view = self._session.need_view()
        image, spacing = _channel(view, channel), view.image.spacing_mm

        def compute(label: Label) -> Label:
            new, slices = interpolation.fill_between(label, values, axis, spacing)
            if not slices:
                raise UserError(
                    "There is nothing to fill: the structure has to be painted in two slices with "
                    "slices between them that nobody annotated."
                )
            if follow_edges:
                new = random_walker.refine_to_edges(image, label, new, axis, spacing)
            return new

        self._edit("Filling between slices", compute)

    def copy_slice(self, value: int, axis: int, source: int, target: int) -> None:
        """Copy a structure from a slice into another one, where nobody annotated that."""
        size = self._session.need_view().label.shape[axis]
        if not (0 <= source < size and 0 <= target < size):
            raise UserError("There is no slice there to copy from.")

        def compute(label: Label) -> Label:
            if not (np.moveaxis(label, axis, 0)[source] == value).any():
                raise UserError("The neighboring slice does not show this structure.")
            return interpolation.copy_slice(label, value, axis, source, target)

        self._edit("Copying a slice", compute)

    def smooth(self, value: int, width_mm: float) -> None:
        """Smooth a structure's surface."""
        spacing = self._session.need_view().image.spacing_mm
        self._edit("Smoothing", lambda label: morphology.smooth(label, value, spacing, width_mm))

    def fill_holes(self, value: int) -> None:
        """Fill what a structure encloses."""
        self._edit("Filling holes", lambda label: morphology.fill_holes(label, value))

    def keep_largest(self, value: int) -> None:
        """Keep the largest connected piece of a structure."""
        self._edit(
            "Keeping the largest piece",
            lambda label: morphology.keep_largest_component(label, value),
        )

    # ---- With a preview --------------------------------------------------------------------

    def grow(self, channel: int = 0, margin_mm: float = GROW_MARGIN_MM) -> None:
        """Propose what all structures grow to from their strokes; see ``accept_proposal``.

        They stay inside the box that was drawn, or, without one, within a margin of the strokes.
        """
        view = self._session.need_view()
        image, drawn = _channel(view, channel), self.box

        def compute(label: Label) -> Label:
            box = drawn or random_walker.find_scribble_box(label, view.image.spacing_mm, margin_mm)
            return random_walker.grow(image, label, box, view.image.spacing_mm).label

        self._compute("Growing from strokes", compute, self._propose)

    def accept_proposal(self) -> int:
        """Make the proposal part of the label, as one undo step; returns its voxels."""
        if self._proposal is None:
            raise UserError("There is no proposal to accept. Grow from strokes first.")
        change, self._proposal = self._proposal, None
        self.proposal_changed.emit(None)
        return self._apply(change)

    def discard_proposal(self) -> None:
        """Forget the proposal; the label stays as it is."""
        self._proposal = None
        self.proposal_changed.emit(None)

    @property
    def has_proposal(self) -> bool:
        """Whether something waits to be accepted."""
        return self._proposal is not None

    def draw_box(self, corners: npt.ArrayLike, axis: int, margin_mm: float = GROW_MARGIN_MM) -> Box:
        """Let growing stay in the box that a rectangle in a slice makes, and return that.

        The first rectangle's box reaches from the first to the last slice with strokes of
        structures inside it, and ``margin_mm`` further. A further one changes the box's outline, or
        makes the box reach to its slice.

        Parameters
        ----------
        corners : (N, 3), in voxels
        axis : across which the slice lies
        """
        view = self._session.need_view()
        rectangle = rectangle_to_box(corners, axis, view.label.shape)
        if self.box is None:
            box = extrude_rectangle(rectangle, axis, view.label, view.image.spacing_mm, margin_mm)
        else:
            box = update_box(self.box, rectangle, axis)
        self.limit_growing(box)
        return box

    def limit_growing(self, box: Box | None) -> None:
        """Let growing stay in a box of the case in view; ``None`` for a margin around strokes."""
        view = self._session.need_view() if box is not None else self._session.view
        if box is not None and view is not None:
            spans = zip(box, view.label.shape, strict=True)
            if not all(0 <= s.start < s.stop <= n for s, n in spans):
                raise UserError("The box is empty, or reaches beyond the scan.")
        self._box_case = view.id if view is not None else ""
        self.box = box
        self.box_changed.emit(box)

    # ---- Painting within gray values ---------------------------------------------------------

    def limit_painting(self, gray: tuple[float, float] | None) -> None:
        """Let the brush reach only voxels of these gray values; ``None`` for all."""
        if gray is not None and not gray[0] <= gray[1]:
            raise UserError(f"The range {gray[0]:g} to {gray[1]:g} is empty.")
        self.paint_range = gray
        self.range_changed.emit(gray)

    def pick_range(self, voxel: Sequence[int], channel: int = 0) -> tuple[float, float]:
        """Limit painting to gray values like those around a voxel ``(d, h, w)``."""
        view = self._session.need_view()
        image = _channel(view, channel)
        if not all(0 <= v < n for v, n in zip(voxel, image.shape, strict=True)):
            raise UserError("That place lies outside the scan.")
        reach = [max(round(PICK_MM / s), 1) for s in view.image.spacing_mm]
        near = image[
            tuple(slice(max(v - r, 0), v + r + 1) for v, r in zip(voxel, reach, strict=True))
        ].astype(np.float64)
        middle = float(np.median(near))
        # A click beside an edge should not open the range to both sides of it.
        width = PICK_WIDTH * 1.4826 * float(np.median(np.abs(near - middle)))
        low, high = view.gray[channel]
        width = max(width, 0.02 * (high - low))
        self.limit_painting((middle - width, middle + width))
        return middle - width, middle + width

    # ---- Helpers ---------------------------------------------------------------------------

    def _edit(self, what: str, compute: Callable[[Label], Label]) -> None:
        def done(change: Change | None) -> None:
            changed = self._apply(change)
            text = f"{what}: {changed} voxels changed." if changed else f"{what}: nothing to do."
            self._session.message.emit("info", text)

        self._compute(what, compute, done)

    def _compute(
        self, what: str, compute: Callable[[Label], Label], done: Callable[[Change | None], None]
    ) -> None:
        """Run on a copy of the label in view; the answer counts while that case stays in view."""
        if self.busy:
            raise BusyError(f"{self.busy} is still at work; wait a moment.")
        view = self._session.need_view()
        snapshot = view.label.copy()

        def work() -> Change | None:
            new = compute(snapshot)
            box = bounding_box(new != snapshot)
            return None if box is None else Change(box, snapshot[box], new[box])

        def finished(change: Change | None) -> None:
            self._set_busy("")
            if self._session.view is view:
                done(change)

        def failed(error: Exception) -> None:
            self._set_busy("")
            self._session.tell(error)

        self._set_busy(what)
        self._session.background.run(work, finished, failed)

    def _propose(self, change: Change | None) -> None:
        if change is None:
            self._session.message.emit(
                "info", "Nothing grew: everything around the strokes is annotated already."
            )
            return
        self._proposal = change
        shown = np.zeros(self._session.need_view().label.shape, np.uint8)
        shown[change.box] = np.where(change.after != change.before, change.after, 0)
        self.proposal_changed.emit(shown)

    def _apply(self, change: Change | None) -> int:
        if change is None:
            return 0
        now = self._session.need_view().label[change.box]
        untouched = now == change.before
        return self._session.write_label(change.box, np.where(untouched, change.after, now))

    def _case_changed(self, view: CaseView | None) -> None:
        if self._proposal is not None:
            self.discard_proposal()
        if self.box is not None and (view is None or view.id != self._box_case):
            self.limit_growing(None)

    def _set_busy(self, what: str) -> None:
        self.busy = what
        self.busy_changed.emit(what)


def _channel(view: CaseView, channel: int) -> npt.NDArray[Any]:
    """One channel of the scan in view, (D, H, W)."""
    array: npt.NDArray[Any] = view.image.array
    return array if array.ndim == 3 else np.asarray(array[channel])
