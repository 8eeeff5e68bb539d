"""Undoable edits of the active label, and the status of cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from napari_dycon.application.labels.autosave import LabelAutosaver
from napari_dycon.application.state import AppState
from napari_dycon.core.boxes import bounding_box
from napari_dycon.core.types import UNANNOTATED, Array, Box, LabelArray
from napari_dycon.errors import UserError
from napari_dycon.project.models import Status

LabelWriter = Callable[[Box, Array], None]


class LabelEditor:
    """Edits the label of the active case.

    Attributes
    ----------
    writer : writes a box of the active label instead of this class; a window sets it for every
        case it shows, so that edits become one step of the layer's own undo history
    """

    def __init__(self, state: AppState, autosaver: LabelAutosaver) -> None:
        self._state = state
        self._autosaver = autosaver
        self.writer: LabelWriter | None = None
        state.case_shown.connect(self._on_case_shown)

    def set_label(self, new: LabelArray) -> int:
        """Replace the active label as one undoable step; returns how many voxels changed."""
        case = self._state.require_case()
        if new.shape != case.label.shape:
            raise UserError(
                f"The new label has the shape {new.shape}, the scan has {case.label.shape}."
            )
        box = bounding_box(case.label != new)
        return 0 if box is None else self.write_label(box, new[box])

    def write_label(self, box: Box, values: Array) -> int:
        """Write a box of the active label as one undoable step; returns how many voxels changed.

        Parameters
        ----------
        box : three slices of the label
        values : what the box holds afterwards
        """
        case = self._state.require_case()
        self._state.require_project().require_writable()
        n_changed = int(np.count_nonzero(case.label[box] != values))
        if n_changed:
            if self.writer is None:
                case.label[box] = values
            else:
                self.writer(box, values)
            self._state.label_edited.emit(case.id)
        return n_changed

    def fill_background(self, slice_index: int | None = None, axis: int = 0) -> int:
        """Make unannotated voxels background, in one slice or everywhere."""
        new = self._state.require_case().label.copy()
        selection: tuple[Any, ...] = (slice(None),) * 3
        if slice_index is not None:
            selection = tuple(slice_index if a == axis else slice(None) for a in range(3))
        part = new[selection]
        new[selection] = np.where(part == UNANNOTATED, 0, part)
        return self.set_label(new)

    def set_case_status(self, case_id: str, status: Status) -> None:
        """Set a case's status; "labeled" and "reviewed" make the rest of it background."""
        project, case = self._state.require_project(), self._state.case
        if status in (Status.LABELED, Status.REVIEWED):
            if case is None or case.id != case_id:
                name = project.get_case(case_id).display_name
                raise UserError(f"Show case {name} first, then mark it as {status}.")
            if not np.any((case.label != UNANNOTATED) & (case.label != 0)):
                raise UserError(
                    f"Case {case.display_name} has no annotation yet. Paint a structure first, or "
                    "accept a prediction; then mark it."
                )
            self.fill_background()
            self._autosaver.flush()
        project.set_status(case_id, status)
        self._state.cases_changed.emit()

    def _on_case_shown(self, _: object) -> None:
        self.writer = None
