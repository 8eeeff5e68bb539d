"""The *Annotate* section: structures, brush, tools and completion status."""

from __future__ import annotations

from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_dycon.project.models import Status
from napari_dycon.session import Session
from napari_dycon.widgets.annotate.brush import BrushControls
from napari_dycon.widgets.annotate.structure_list import StructureList
from napari_dycon.widgets.annotate.tools import DrawTools
from napari_dycon.widgets.layers.case_layers import CaseLayers
from napari_dycon.widgets.window.helpers import (
    make_button,
    make_hint_label,
    make_plain_label,
    report_errors,
    set_enabled,
)


class AnnotateSection(QWidget):
    """Structures, brush, tools, and buttons that mark slices and scans as complete."""

    def __init__(self, session: Session, layers: CaseLayers) -> None:
        super().__init__()
        self.session = session
        self.layers = layers
        self.structures = StructureList(session, layers)
        self.brush = BrushControls(session, layers, self.structures)
        self.tools = DrawTools(session, layers, self.structures)
        self.complete_slice_button = make_button(
            "Mark slice complete",
            "Set the unannotated voxels of this slice to background (S)",
            report_errors(session, self.mark_slice_complete),
        )
        self.complete_case_button = make_button(
            "Mark scan complete",
            "Set the unannotated voxels of this scan to background and mark the case as labeled",
            report_errors(session, lambda: self._set_status(Status.LABELED)),
        )
        self.reviewed_button = make_button(
            "Mark as reviewed",
            "Set the unannotated voxels of this scan to background and mark the case as reviewed",
            report_errors(session, lambda: self._set_status(Status.REVIEWED)),
        )
        self.unannotated_checkbox = QCheckBox("Highlight unannotated voxels")
        self.unannotated_checkbox.setToolTip("Highlight the voxels that training ignores")
        self.unannotated_checkbox.toggled.connect(layers.set_show_unannotated)
        self.saved_label = make_plain_label(wrap=False)

        layout = QVBoxLayout(self)
        layout.addWidget(self.structures)
        layout.addWidget(self.brush)
        collapsible = QCollapsible("Tools")
        collapsible.layout().setContentsMargins(0, 0, 0, 0)
        collapsible.addWidget(self.tools)
        collapsible.expand(animate=False)
        layout.addWidget(collapsible)
        for row in (
            (self.complete_slice_button,),
            (self.complete_case_button, self.reviewed_button),
        ):
            line = QHBoxLayout()
            for item in row:
                line.addWidget(item)
            layout.addLayout(line)
        layout.addWidget(self.unannotated_checkbox)
        layout.addWidget(
            make_hint_label(
                "Labels are saved automatically. Training ignores unannotated voxels, so a few "
                "complete slices are enough to start."
            )
        )
        layout.addWidget(self.saved_label)
        layout.addStretch(1)
        session.case_shown.connect(self._refresh)
        session.label_saved.connect(self._on_saved)
        self._refresh()

    def mark_slice_complete(self) -> None:
        """Set unannotated voxels of the current slice to background."""
        if self.layers.viewer.dims.ndisplay != 2:
            self.session.message.emit("warning", "Switch to the 2D view to mark a slice complete.")
            return
        index = self.layers.slice_index
        n_changed = self.session.fill_background(index, self.layers.axis)
        self.session.save_label()
        self.session.message.emit(
            "info", f"Slice {index} complete: {n_changed} voxels set to background."
        )

    def _refresh(self, *_: object) -> None:
        blocked_reason = self.session.edit_blocked_reason()
        for item in (self.complete_slice_button, self.complete_case_button, self.reviewed_button):
            set_enabled(item, blocked_reason)

    def _set_status(self, status: Status) -> None:
        if self.session.case is not None:
            self.session.set_case_status(self.session.case.id, status)

    def _on_saved(self, case_id: str) -> None:
        from qtpy.QtCore import QTime

        self.saved_label.setText(f"Saved {case_id} at {QTime.currentTime().toString('HH:mm:ss')}")
