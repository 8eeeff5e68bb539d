"""Annotation tools: interpolation, growing from scribbles, morphological clean-up."""

from __future__ import annotations

from qtpy.QtWidgets import QCheckBox, QDoubleSpinBox, QGridLayout, QLabel, QWidget

from napari_dycon.errors import UserError
from napari_dycon.session import Session
from napari_dycon.widgets.annotate.roi_controls import RoiControls
from napari_dycon.widgets.annotate.structure_list import StructureList
from napari_dycon.widgets.layers.case_layers import CaseLayers
from napari_dycon.widgets.window.helpers import make_button, report_errors, set_enabled
from napari_dycon.widgets.window.preferences import get_preferences


class DrawTools(QWidget):
    """Buttons of the annotation tools.

    Each edit is one undo step; growing shows a proposal first.
    """

    def __init__(self, session: Session, layers: CaseLayers, structures: StructureList) -> None:
        super().__init__()
        self.session = session
        self.layers = layers
        self.structures = structures
        self._build_interpolation()
        self._build_growing()
        self._build_cleanup()
        self.busy_label = QLabel(" ")
        self._lay_out()
        session.case_shown.connect(self._refresh)
        session.annotation.operation_changed.connect(self._refresh)
        session.annotation.proposal_changed.connect(self._refresh)
        self._refresh()

    def _build_interpolation(self) -> None:
        self.fill_button = make_button(
            "Interpolate slices",
            "Interpolate the selected structure between annotated slices along the current axis "
            "(I)",
            report_errors(self.session, self.fill_between),
        )
        self.all_checkbox = QCheckBox("All structures")
        self.all_checkbox.setToolTip(
            "Interpolate all structures; between complete slices, the remaining voxels become "
            "background"
        )
        self.edges_checkbox = QCheckBox("Follow edges")
        self.edges_checkbox.setChecked(True)
        self.edges_checkbox.setToolTip(
            "Align interpolated borders with image edges where annotated slices are at least 6 "
            "mm apart"
        )
        self.copy_previous_button = make_button(
            "Copy previous slice",
            "Copy the selected structure from the previous slice (W)",
            report_errors(self.session, lambda: self.copy_neighbor_slice(-1)),
        )
        self.copy_next_button = make_button(
            "Copy next slice",
            "Copy the selected structure from the next slice (Shift+W)",
            report_errors(self.session, lambda: self.copy_neighbor_slice(1)),
        )

    def _build_growing(self) -> None:
        annotation = self.session.annotation
        self.grow_button = make_button(
            "Grow from scribbles",
            "Segment the painted structures from scribbles; also scribble some background nearby "
            "first (G)",
            report_errors(self.session, self.grow_from_scribbles),
        )
        self.roi_controls = RoiControls(self.session, self.layers)
        self.accept_button = make_button(
            "Accept", "Add the proposal to the label (A)",
            report_errors(self.session, annotation.accept_proposal),
        )  # fmt: skip
        self.discard_button = make_button(
            "Discard",
            "Discard the proposal (D)",
            report_errors(self.session, annotation.discard_proposal),
        )

    def _build_cleanup(self) -> None:
        annotation, structures = self.session.annotation, self.structures
        self.smooth_button = make_button(
            "Smooth",
            "Smooth the selected structure in the whole scan",
            report_errors(self.session, self.smooth),
        )
        self.smoothing_sigma = QDoubleSpinBox()
        self.smoothing_sigma.setRange(0.1, 20.0)
        self.smoothing_sigma.setDecimals(1)
        self.smoothing_sigma.setValue(1.0)
        self.smoothing_sigma.setSuffix(" mm")
        self.smoothing_sigma.setAccessibleName("Width of smoothing")
        self.smoothing_sigma.setToolTip("Standard deviation of the smoothing filter")
        self.fill_holes_button = make_button(
            "Fill holes",
            "Fill holes inside the selected structure",
            report_errors(self.session, lambda: annotation.fill_holes(structures.value)),
        )
        self.keep_largest_button = make_button(
            "Keep largest",
            "Keep the largest connected component of the selected structure; "
            "the others become background",
            report_errors(
                self.session, lambda: annotation.keep_largest_component(structures.value)
            ),
        )

    def _lay_out(self) -> None:
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        for row, items in enumerate(
            (
                (self.fill_button, None),
                (self.all_checkbox, self.edges_checkbox),
                (self.copy_previous_button, self.copy_next_button),
                (self.grow_button, None),
                (self.roi_controls.draw_button, self.roi_controls.remove_button),
                (self.roi_controls, None),
                (self.accept_button, self.discard_button),
                (self.smooth_button, self.smoothing_sigma),
                (self.fill_holes_button, self.keep_largest_button),
                (self.busy_label, None),
            )
        ):
            for column, item in enumerate(items):
                if item is not None:
                    span = 2 if items[1] is None else 1
                    grid.addWidget(item, row, column, 1, span)

    def fill_between(self) -> None:
        """Interpolate the selected structure, or all of them, along the current axis."""
        project = self.session.project
        values = [self.structures.value]
        if self.all_checkbox.isChecked() and project is not None:
            values = [info.value for info in project.classes]
        self.session.annotation.fill_between(
            values, self.layers.axis, refine_to_edges=self.edges_checkbox.isChecked()
        )

    def smooth(self) -> None:
        """Smooth the selected structure by the width set in the panel."""
        self.session.annotation.smooth(self.structures.value, self.smoothing_sigma.value())

    def grow_from_scribbles(self) -> None:
        """Propose a segmentation from scribbles, inside the region of interest if there is one."""
        self.layers.roi.finish_editing()
        self.session.annotation.grow(margin_mm=float(get_preferences().annotate.grow_margin_mm))

    def copy_neighbor_slice(self, step: int) -> None:
        """Copy the selected structure from a neighboring slice to the current one."""
        if self.layers.viewer.dims.ndisplay != 2:
            raise UserError("Switch to the 2D view to copy a slice.")
        current_slice = self.layers.slice_index
        self.session.annotation.copy_slice(
            self.structures.value, self.layers.axis, current_slice + step, current_slice
        )

    def _refresh(self, *_: object) -> None:
        annotation = self.session.annotation
        blocked_reason = self.session.edit_blocked_reason()
        if annotation.operation:
            blocked_reason = f"{annotation.operation.lower()} is running"
        for item in (
            self.fill_button,
            self.copy_previous_button,
            self.copy_next_button,
            self.grow_button,
            self.smooth_button,
            self.fill_holes_button,
            self.keep_largest_button,
        ):
            set_enabled(item, blocked_reason)
        for item in (self.accept_button, self.discard_button):
            set_enabled(item, "" if annotation.has_proposal else "there is no proposal")
        # The space keeps its line, so that nothing moves.
        self.busy_label.setText(f"{annotation.operation}…" if annotation.operation else " ")
