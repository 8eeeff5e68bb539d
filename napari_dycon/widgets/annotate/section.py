"""The *Annotate* section: structures, brush, completion and tools."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QCheckBox, QScrollArea, QVBoxLayout, QWidget

from napari_dycon.session import Session
from napari_dycon.widgets.annotate.brush import BrushControls
from napari_dycon.widgets.annotate.completion import CompletionBar
from napari_dycon.widgets.annotate.structure_list import StructureList
from napari_dycon.widgets.annotate.tools import DrawTools
from napari_dycon.widgets.layers.case_layers import CaseLayers
from napari_dycon.widgets.window.folding import make_collapsible

SPACING_PX = 4
UNFOLD_MARGIN_PX = 40  # so that small changes, as of a theme, do not unfold them
SCROLLED_PX = 70  # of unfolded tools that may need scrolling
TOOLS_TITLE = "Interpolate, grow, clean up"


class AnnotateSection(QWidget):
    """Structures, brush, tools, and buttons that mark slices and scans as complete.

    The tools are folded where the window is too low for them, until the user unfolds them.
    """

    def __init__(self, session: Session, layers: CaseLayers) -> None:
        super().__init__()
        self.session = session
        self.layers = layers
        self.structures = StructureList(session, layers)
        self.brush = BrushControls(session, layers, self.structures)
        self.tools = DrawTools(session, layers, self.structures)
        self.completion = CompletionBar(session, layers)
        self.mark_slice_complete = self.completion.mark_slice_complete
        self.unannotated_checkbox = QCheckBox("Highlight unannotated voxels")
        self.unannotated_checkbox.setToolTip(
            "Highlight the voxels that training ignores. A few complete slices are enough to start"
        )
        self.unannotated_checkbox.toggled.connect(layers.set_show_unannotated)
        self.collapsible = make_collapsible(TOOLS_TITLE, self.tools)
        self.collapsible.expand(animate=False)
        self.collapsible.toggled.connect(self._on_toggled)
        session.annotation.proposal_changed.connect(self._show_proposal_buttons)
        self._is_folding = False
        self._has_decided = False  # whether the tools fit
        self._is_chosen = False  # the user folded or unfolded the tools
        self._viewport: QWidget | None = None

        layout = QVBoxLayout(self)
        layout.setContentsMargins(2, 4, 2, 4)
        layout.setSpacing(SPACING_PX)
        for widget in (
            self.structures,
            self.brush,
            self.completion,
            self.unannotated_checkbox,
            self.collapsible,
        ):
            layout.addWidget(widget)
        layout.addStretch(1)

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 (Qt's name)
        """Watch the height of the scroll area around this section."""
        super().showEvent(event)
        parent = self.parentWidget()
        if self._viewport is None and isinstance(
            parent.parentWidget() if parent is not None else None, QScrollArea
        ):
            self._viewport = parent
            self._viewport.installEventFilter(self)
        self._fold()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 (Qt's name)
        """Fold or unfold the tools when the window becomes lower or higher."""
        if (
            watched is self._viewport
            and event.type() == QEvent.Type.Resize
            # Folding shows or hides a scroll bar, which changes the width again.
            and event.size().height() != event.oldSize().height()
        ):
            self._fold()
        return bool(super().eventFilter(watched, event))

    def _fold(self) -> None:
        """Fold the tools if they do not fit, unless the user decided otherwise."""
        if self._viewport is None or self._is_chosen:
            return
        is_expanded = self.collapsible.isExpanded()
        needed = self.minimumSizeHint().height()
        if not is_expanded:
            needed += self.tools.sizeHint().height()
        if not is_expanded and self._has_decided:
            needed += UNFOLD_MARGIN_PX
        fits = self._viewport.height() + SCROLLED_PX >= needed
        self._has_decided = True
        if fits != is_expanded:
            self._is_folding = True
            if fits:
                self.collapsible.expand(animate=False)
            else:
                self.collapsible.collapse(animate=False)
            self._is_folding = False

    def _show_proposal_buttons(self, proposal: object) -> None:
        """Unfold the tools, which have the buttons that accept and discard a proposal."""
        if proposal is not None and not self.collapsible.isExpanded():
            self.collapsible.expand(animate=False)

    def _on_toggled(self, _: bool) -> None:
        self._is_chosen |= not self._is_folding
