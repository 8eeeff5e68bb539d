"""Annotate: choose a structure, paint and let the tools draw, say what is finished."""

from __future__ import annotations

from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_dycon.session import Session
from napari_dycon.widgets.annotate.brush import Brush
from napari_dycon.widgets.annotate.ct_window import GrayWindow
from napari_dycon.widgets.annotate.structure_list import Palette
from napari_dycon.widgets.annotate.tools import DrawTools
from napari_dycon.widgets.layers.case_layers import CaseLayers
from napari_dycon.widgets.window.helpers import button, guarded, hint, plain_label, set_enabled


class AnnotateSection(QWidget):
    """Structures, brush, tools, and the three ways to say "done"."""

    def __init__(self, session: Session, layers: CaseLayers) -> None:
        super().__init__()
        self.session = session
        self.layers = layers
        self.structures = Palette(session, layers)
        self.brush = Brush(session, layers, self.structures)
        self.tools = DrawTools(session, layers, self.structures)
        self.slice_done = button(
            "This slice is done",
            "Everything not painted in the shown slice is background; training learns from it "
            "(key S)",
            guarded(session, self.finish_slice),
        )
        self.case_done = button(
            "Whole scan is done",
            "Everything not painted in this scan is background; the case counts as labeled",
            guarded(session, lambda: self._status("labeled")),
        )
        self.reviewed = button(
            "Mark as reviewed",
            "The label of this scan was checked and is final",
            guarded(session, lambda: self._status("reviewed")),
        )
        self.tint = QCheckBox("Show what nobody annotated yet")
        self.tint.setToolTip("Tint the voxels that training will ignore")
        self.tint.toggled.connect(layers.set_show_unannotated)
        self.saved = plain_label(wrap=False)

        layout = QVBoxLayout(self)
        self.gray_window = GrayWindow(session, layers)
        layout.addWidget(self.gray_window)
        layout.addWidget(self.structures)
        layout.addWidget(self.brush)
        folded = QCollapsible("Fill, grow, tidy")
        folded.layout().setContentsMargins(0, 0, 0, 0)
        folded.addWidget(self.tools)
        folded.expand(animate=False)
        layout.addWidget(folded)
        for row in ((self.slice_done, self.case_done), (self.reviewed,)):
            line = QHBoxLayout()
            for item in row:
                line.addWidget(item)
            layout.addLayout(line)
        layout.addWidget(self.tint)
        layout.addWidget(
            hint(
                "Labels save themselves. Voxels that nobody painted or declared as background are "
                "ignored by the training, so a few finished slices are enough to start."
            )
        )
        layout.addWidget(self.saved)
        layout.addStretch(1)
        session.case_shown.connect(self._refresh)
        session.label_saved.connect(self._on_saved)
        self._refresh()

    def finish_slice(self) -> None:
        """Declare the rest of the slice in view to be background."""
        if self.layers.viewer.dims.ndisplay != 2:
            self.session.message.emit("warning", "Switch to the 2D view to finish a slice.")
            return
        index = self.layers.slice_index
        changed = self.session.fill_background(index, self.layers.axis)
        self.session.save_label()
        self.session.message.emit("info", f"Slice {index}: {changed} voxels are background now.")

    def _refresh(self, *_: object) -> None:
        why_not = self.session.edit_blocked_reason()
        for item in (self.slice_done, self.case_done, self.reviewed):
            set_enabled(item, why_not)

    def _status(self, status: str) -> None:
        if self.session.case is not None:
            self.session.set_case_status(self.session.case.id, status)

    def _on_saved(self, case_id: str) -> None:
        from qtpy.QtCore import QTime

        self.saved.setText(f"Saved {case_id} at {QTime.currentTime().toString('HH:mm:ss')}")
