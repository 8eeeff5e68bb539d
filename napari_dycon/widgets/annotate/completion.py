"""Buttons that mark a slice or a scan as complete, and the note of the last save."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QTime
from qtpy.QtWidgets import QGridLayout, QSizePolicy, QWidget

from napari_dycon.application.labels.operations import PLANE_NAMES
from napari_dycon.core.text import escape_control_characters
from napari_dycon.core.types import UNANNOTATED, LabelArray
from napari_dycon.errors import DyconError
from napari_dycon.project.models import Status
from napari_dycon.session import Session
from napari_dycon.widgets.layers.case_layers import CaseLayers
from napari_dycon.widgets.window.helpers import (
    make_button,
    make_plain_label,
    report_errors,
    set_enabled,
)

SAVING_NOTE = "Saved automatically"
MAX_RANGES = 2  # of slices, named in a message


class CompletionBar(QWidget):
    """Marks slices and scans as complete.

    ``slice_button`` is not part of the bar: it is placed at the canvas.
    """

    def __init__(self, session: Session, layers: CaseLayers) -> None:
        super().__init__()
        self.session = session
        self.layers = layers
        self.slice_button = make_button(
            "Mark slice complete",
            "",
            report_errors(session, self.mark_slice_complete),
        )
        self.scan_button = make_button(
            "Mark scan complete",
            "Set the unannotated voxels of this scan to background and mark the case as labeled",
            report_errors(session, lambda: self._mark_scan(Status.LABELED)),
        )
        self.reviewed_button = make_button(
            "Mark as reviewed",
            "Set the unannotated voxels of this scan to background and mark the case as reviewed",
            report_errors(session, lambda: self._mark_scan(Status.REVIEWED)),
        )
        self._noted_case = ""  # that the note of the last save is about
        self.saved_label = make_plain_label(SAVING_NOTE, wrap=False)
        # A long name must not widen the bar; the tooltip shows all of it.
        self.saved_label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        grid.addWidget(self.scan_button, 0, 0)
        grid.addWidget(self.reviewed_button, 0, 1)
        grid.addWidget(self.saved_label, 1, 0, 1, 2)
        session.case_shown.connect(self._on_case_shown)
        session.label_saved.connect(self._on_saved)
        layers.axis_changed.connect(self._on_case_shown)  # also when 3D is entered or left
        self._on_case_shown()

    def mark_slice_complete(self) -> None:
        """Set unannotated voxels of the current slice to background."""
        if self.layers.viewer.dims.ndisplay != 2:
            self.session.message.emit("warning", "Switch to the 2D view to mark a slice complete.")
            return
        index = self.layers.slice_index
        self.session.fill_background(index, self.layers.axis)
        self.session.save_label()
        plane = PLANE_NAMES[self.layers.axis].capitalize()
        self.session.message.emit("info", f"{plane} slice {index + 1} marked complete.")

    def _mark_scan(self, status: Status) -> None:
        """Mark the scan, and name the slices that had no annotation at all."""
        case = self.session.require_case()
        empty = find_unannotated_slices(case.label, self.layers.axis)
        self.session.set_case_status(case.id, status)
        what = "reviewed" if status is Status.REVIEWED else "complete"
        text = f"Scan marked {what}."
        if empty:  # short enough for two lines; Undo says the same
            verb = "was not annotated" if len(empty) == 1 else "were not annotated"
            text += f" {format_slices(empty)} {verb}: background now."
        self.session.message.emit("info", text)

    def _name_plane(self) -> None:
        """Say which slice the button marks; it is below the main view, but acts on the one used."""
        plane = PLANE_NAMES[self.layers.axis]
        is_main = self.layers.axis == self.layers.main_axis
        self.slice_button.setText(f"Mark {'' if is_main else plane + ' '}slice complete")
        self.slice_button.setProperty(
            "dycon_tip", f"Set the unannotated voxels of this {plane} slice to background (S)"
        )

    def _on_case_shown(self, *_: object) -> None:
        self._name_plane()
        blocked_reason = self.session.edit_blocked_reason()
        for button in (self.slice_button, self.scan_button, self.reviewed_button):
            set_enabled(button, blocked_reason)
        if not blocked_reason and self.layers.viewer.dims.ndisplay != 2:
            set_enabled(self.slice_button, "switch to the 2D view first")
        case = self.session.case
        if case is None or case.id != self._noted_case:  # the note is about another case
            self._noted_case = case.id if case is not None else ""
            self._show_note(SAVING_NOTE)

    def _on_saved(self, case_id: str) -> None:
        if self.session.case is None or self.session.case.id != case_id:
            return  # the case before, whose save ended after the change
        try:
            name = self.session.require_project().get_case(case_id).display_name
        except DyconError:  # the project was closed or the case removed meanwhile
            name = case_id
        time = QTime.currentTime().toString("HH:mm:ss")
        self._show_note(f"Saved {time}", f"{name} was saved at {time}")

    def _show_note(self, text: str, tip: str = "") -> None:
        self.saved_label.setText(text)
        self.saved_label.setToolTip(escape_control_characters(tip))


def find_unannotated_slices(label: LabelArray, axis: int) -> list[int]:
    """Find the slices of a label without any annotated voxel, unless that is true for all."""
    other_axes = tuple(other for other in range(label.ndim) if other != axis)
    is_empty = label.min(axis=other_axes) == UNANNOTATED
    return [] if is_empty.all() else [int(index) for index in np.flatnonzero(is_empty)]


def format_slices(indices: list[int]) -> str:
    """Format slice indices for the user, counted from 1: "Slices 30–34 and 76–82"."""
    ranges: list[list[int]] = []
    for index in indices:
        if ranges and index == ranges[-1][1] + 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    if len(ranges) > MAX_RANGES:
        return f"{len(indices)} slices"
    texts = [str(a + 1) if a == b else f"{a + 1}–{b + 1}" for a, b in ranges]
    joined = " and ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))
    return f"{'Slice' if len(indices) == 1 else 'Slices'} {joined}"
