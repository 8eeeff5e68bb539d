"""Tools that draw for a person: fill between slices, grow, tidy."""

from __future__ import annotations

from qtpy.QtWidgets import QCheckBox, QDoubleSpinBox, QGridLayout, QLabel, QWidget

from napari_dycon.errors import UserError
from napari_dycon.session import Session
from napari_dycon.widgets.annotate.roi_controls import BoxTools
from napari_dycon.widgets.annotate.structure_list import Palette
from napari_dycon.widgets.layers.case_layers import CaseLayers
from napari_dycon.widgets.window.helpers import button, guarded, set_enabled
from napari_dycon.widgets.window.preferences import preferences


class DrawTools(QWidget):
    """Buttons; each is one step of napari's undo, and growing shows a proposal first."""

    def __init__(self, session: Session, layers: CaseLayers, palette: Palette) -> None:
        super().__init__()
        self.session = session
        self.layers = layers
        self.palette_of_structures = palette
        drawing = session.annotation
        self.fill = button(
            "Fill between slices",
            "Fill the chosen structure between the slices it is painted in, across the axis in "
            "view (key I)",
            guarded(session, self.fill_between),
        )
        self.all = QCheckBox("all structures")
        self.all.setToolTip(
            "Fill all structures together; between finished slices the rest becomes background"
        )
        self.edges = QCheckBox("follow edges")
        self.edges.setChecked(True)
        self.edges.setToolTip(
            "Where annotated slices lie 6 mm apart or more, borders between them follow the scan"
        )
        self.from_before = button(
            "Copy slice before",
            "Copy the chosen structure from the slice before the one in view (key W)",
            guarded(session, lambda: self.copy_neighbor(-1)),
        )
        self.from_after = button(
            "Copy slice after",
            "Copy the chosen structure from the slice after the one in view (Shift+W)",
            guarded(session, lambda: self.copy_neighbor(1)),
        )
        self.grow = button(
            "Grow from strokes",
            "Propose what all painted structures grow to; paint some background beside them "
            "first (key G)",
            guarded(session, self.grow_strokes),
        )
        self.box = BoxTools(session, layers)
        self.accept = button(
            "Accept", "Make the proposal part of the label (key A)",
            guarded(session, drawing.accept_proposal),
        )  # fmt: skip
        self.discard = button(
            "Discard", "Forget the proposal (key D)", guarded(session, drawing.discard_proposal)
        )
        self.smooth = button(
            "Smooth",
            "Smooth the surface of the chosen structure, in the whole scan",
            guarded(session, lambda: drawing.smooth(palette.value, self.width.value())),
        )
        self.width = QDoubleSpinBox()
        self.width.setRange(0.1, 20.0)
        self.width.setDecimals(1)
        self.width.setValue(1.0)
        self.width.setSuffix(" mm")
        self.width.setToolTip("How much is smoothed away")
        self.holes = button(
            "Fill holes",
            "Fill what the chosen structure encloses",
            guarded(session, lambda: drawing.fill_holes(palette.value)),
        )
        self.largest = button(
            "Largest piece",
            "Keep the largest connected piece of the chosen structure; others become background",
            guarded(session, lambda: drawing.keep_largest_component(palette.value)),
        )
        self.busy = QLabel("")
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        for row, items in enumerate(
            (
                (self.fill, None),
                (self.all, self.edges),
                (self.from_before, self.from_after),
                (self.grow, None),
                (self.box.draw, self.box.remove),
                (self.box, None),
                (self.accept, self.discard),
                (self.smooth, self.width),
                (self.holes, self.largest),
                (self.busy, None),
            )
        ):
            for column, item in enumerate(items):
                if item is not None:
                    span = 2 if items[1] is None else 1
                    grid.addWidget(item, row, column, 1, span)
        session.case_shown.connect(self._refresh)
        drawing.operation_changed.connect(self._refresh)
        drawing.proposal_changed.connect(self._refresh)
        self._refresh()

    def fill_between(self) -> None:
        """Fill the chosen structure, or all of them, across the axis in view."""
        project = self.session.project
        chosen = [self.palette_of_structures.value]
        if self.all.isChecked() and project is not None:
            chosen = [info.value for info in project.classes]
        self.session.annotation.fill_between(
            chosen, self.layers.axis, refine_to_edges=self.edges.isChecked()
        )

    def grow_strokes(self) -> None:
        """Propose what structures grow to from their strokes, inside the box if there is one."""
        self.layers.box.finish()
        self.session.annotation.grow(margin_mm=float(preferences().annotate.grow_margin_mm))

    def copy_neighbor(self, step: int) -> None:
        """Copy the chosen structure from a neighbor of the slice in view."""
        if self.layers.viewer.dims.ndisplay != 2:
            raise UserError("Switch to the 2D view to copy a slice.")
        here = self.layers.slice_index
        self.session.annotation.copy_slice(
            self.palette_of_structures.value, self.layers.axis, here + step, here
        )

    def _refresh(self, *_: object) -> None:
        drawing = self.session.annotation
        why_not = self.session.edit_blocked_reason()
        if drawing.operation:
            why_not = f"{drawing.operation.lower()} is at work"
        for item in (
            self.fill,
            self.from_before,
            self.from_after,
            self.grow,
            self.smooth,
            self.holes,
            self.largest,
        ):
            set_enabled(item, why_not)
        for item in (self.accept, self.discard):
            set_enabled(item, "" if drawing.has_proposal else "nothing is proposed")
            item.setVisible(drawing.has_proposal)
        self.busy.setText(f"{drawing.operation}…" if drawing.operation else "")
        self.busy.setVisible(bool(drawing.operation))
