"""Controls of the brush: value, diameter in millimeters, and intensity limits."""

from __future__ import annotations

from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QLabel,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_dycon.application.intensity_windows import choose_decimals
from napari_dycon.core.types import UNANNOTATED
from napari_dycon.session import Session
from napari_dycon.widgets.annotate.history_buttons import HistoryButtons
from napari_dycon.widgets.annotate.structure_list import StructureList
from napari_dycon.widgets.layers.case_layers import CaseLayers
from napari_dycon.widgets.window.helpers import (
    make_button,
    report_errors,
    set_enabled,
    signals_blocked,
)

BACKGROUND_OR_ERASE = (
    "Background: examined, and none of the structures; training learns from it. "
    "Erase: no longer annotated; training ignores it."
)
DIAMETER_STYLE = "min-width: 96px;"  # for "200.0 mm"; napari's style overrides a minimum width
NARROW_STYLE = "min-width: 48px; padding: 1px 4px;"  # napari's spin boxes are wide


class BrushControls(QWidget):
    """Value, size and intensity limits of napari's brush."""

    def __init__(self, session: Session, layers: CaseLayers, structures: StructureList) -> None:
        super().__init__()
        self.session = session
        self.layers = layers
        self.paint_button = make_button(
            "Paint",
            "Paint the selected structure (P)",
            lambda: self.select_value(structures.value),
        )
        self.background_button = make_button(
            "Background",
            f"Paint background (B)\n{BACKGROUND_OR_ERASE}",
            lambda: self.select_value(0),
        )
        self.erase_button = make_button(
            "Erase",
            f"Erase annotations (E)\n{BACKGROUND_OR_ERASE}",
            lambda: self.select_value(UNANNOTATED),
        )
        for button in (self.paint_button, self.background_button, self.erase_button):
            button.setCheckable(True)  # the one that is in use is highlighted
        self.diameter = QDoubleSpinBox()
        self.diameter.setRange(0.1, 200.0)
        self.diameter.setDecimals(1)
        self.diameter.setSuffix(" mm")
        self.diameter.setStyleSheet(DIAMETER_STYLE)
        self.diameter.setToolTip("Brush diameter ([ and ])")
        self.diameter.setAccessibleName("Brush diameter in millimeters")
        self.diameter.valueChanged.connect(layers.set_brush_mm)
        self.ball_checkbox = QCheckBox("3D")
        self.ball_checkbox.setToolTip(
            "Use a spherical brush that also paints in neighboring slices"
        )
        self.ball_checkbox.toggled.connect(layers.set_brush_3d)
        self.limit_checkbox = QCheckBox("Limit intensity")
        self.limit_checkbox.setAccessibleName("Limit the brush to intensities")
        self.limit_checkbox.setProperty(
            "dycon_tip",
            "Limit the brush to intensities: paint only voxels within this range. Off for every "
            "new case, except for CT",
        )
        self.limit_checkbox.toggled.connect(report_errors(session, self._apply_limit))
        self.low, self.high = QDoubleSpinBox(), QDoubleSpinBox()
        for spin_box, tip in ((self.low, "Lowest"), (self.high, "Highest")):
            spin_box.setRange(-1e6, 1e6)
            spin_box.setToolTip(f"{tip} intensity that the brush paints")
            spin_box.setAccessibleName(f"{tip} intensity")
            spin_box.valueChanged.connect(self._on_range_edited)
        self.pick_button = make_button(
            "Pick",
            "Click in the scan to set the range from the intensities there (R)",
            report_errors(session, self._pick_on_next_click),
        )
        self._history_buttons = HistoryButtons(session, layers)
        self.undo_button = self._history_buttons.undo_button
        self.redo_button = self._history_buttons.redo_button
        self._lay_out()
        layers.stroke_blocked.connect(self._explain_blocked_stroke)
        layers.brush_size_changed.connect(self._show_diameter)
        layers.tool_changed.connect(self._show_painted_value)
        session.case_shown.connect(self._refresh)
        layers.axis_changed.connect(self._refresh)  # also when 3D is entered or left
        session.annotation.paint_range_changed.connect(self._show_range)
        self._show_diameter()
        self._refresh()

    def _lay_out(self) -> None:
        tools, size, limits = QHBoxLayout(), QHBoxLayout(), QHBoxLayout()
        rows = (
            (tools, (self.paint_button, self.background_button, self.erase_button)),
            (size, (QLabel("Size"), self.diameter, self.ball_checkbox)),
            (limits, (self.limit_checkbox, self.low, self.high, self.pick_button)),
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for row, widgets in rows:
            row.setSpacing(4)
            for widget in widgets:
                row.addWidget(widget)
            layout.addLayout(row)
        size.addStretch(1)
        size.addWidget(self._history_buttons)
        for spin_box in (self.low, self.high):
            spin_box.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)
            spin_box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            spin_box.setStyleSheet(NARROW_STYLE)
        limits.setStretch(1, 1)
        limits.setStretch(2, 1)

    def select_value(self, value: int) -> None:
        """Activate the brush to paint a value."""
        layer = self.layers.find_layer("label")
        if layer is not None and not self.layers.is_3d:  # which hides the label
            self.layers.viewer.layers.selection.active = layer
            layer.visible = True
            layer.limits.reference_label = None
            layer.selected_label = value
            layer.mode = "paint"
        self._show_painted_value()

    def pick_at(self, position_mm: tuple[float, ...]) -> None:
        """Limit painting to intensities like those at a position in mm."""
        case = self.session.case
        if case is not None:
            z, y, x = (
                round(p / s) for p, s in zip(position_mm[-3:], case.image.spacing_mm, strict=True)
            )
            self._pick_range((z, y, x))

    def _show_painted_value(self) -> None:
        """Highlight the button of what the brush, the polygon and the fill tool paint."""
        value = self.layers.painted_value
        is_structure = value is not None and value not in (0, UNANNOTATED)
        self.paint_button.setChecked(is_structure)
        self.background_button.setChecked(value == 0)
        self.erase_button.setChecked(value == UNANNOTATED)

    def _refresh(self, *_: object) -> None:
        self._show_painted_value()
        blocked_reason = self.session.edit_blocked_reason()
        set_enabled(self.limit_checkbox, blocked_reason)
        if not blocked_reason and self.layers.viewer.dims.ndisplay != 2:
            blocked_reason = "switch to the 2D view first"
        for item in (
            self.paint_button,
            self.background_button,
            self.erase_button,
            self.pick_button,
        ):
            set_enabled(item, blocked_reason)
        case = self.session.case
        if case is None:
            return
        low, high = case.intensity_ranges[0]
        for spin_box, value in ((self.low, low), (self.high, high)):
            with signals_blocked(spin_box):
                spin_box.setDecimals(choose_decimals((low, high)))
                if not self.limit_checkbox.isChecked():
                    spin_box.setValue(value)

    def _show_diameter(self) -> None:
        with signals_blocked(self.diameter), signals_blocked(self.ball_checkbox):
            self.diameter.setValue(self.layers.brush_mm)
            self.ball_checkbox.setChecked(self.layers.brush_3d)

    def _apply_limit(self, enabled: bool) -> None:
        intensity_range = (self.low.value(), self.high.value()) if enabled else None
        if intensity_range is not None and intensity_range[0] > intensity_range[1]:
            intensity_range = intensity_range[1], intensity_range[0]
        self.session.annotation.set_paint_range(intensity_range)

    def _on_range_edited(self, _: float) -> None:
        if self.limit_checkbox.isChecked():
            report_errors(self.session, self._apply_limit)(True)

    def _show_range(self, intensity_range: tuple[float, float] | None) -> None:
        with (
            signals_blocked(self.limit_checkbox),
            signals_blocked(self.low),
            signals_blocked(self.high),
        ):
            self.limit_checkbox.setChecked(intensity_range is not None)
            if intensity_range is not None:
                self.low.setValue(intensity_range[0])
                self.high.setValue(intensity_range[1])

    def _explain_blocked_stroke(self) -> None:
        """Say why a stroke painted nothing."""
        intensity_range = self.session.annotation.paint_range
        if intensity_range is not None:
            low, high = intensity_range
            self.session.message.emit(
                "info",
                f"Nothing painted: Limit intensity is on, and nothing here is between {low:.4g} "
                f"and {high:.4g}.",
            )

    def _pick_on_next_click(self) -> None:
        """Set the range from the next click in the canvas."""

        def on_click(voxel: tuple[int, int, int]) -> None:
            report_errors(self.session, self._pick_range)(voxel)

        self.layers.call_on_next_click(on_click)
        self.session.message.emit("info", "Click in the scan to pick the intensity range.")

    def _pick_range(self, voxel: tuple[int, int, int]) -> None:
        low, high = self.session.annotation.pick_intensity_range(voxel)
        self.session.message.emit("info", f"Painting only intensities {low:.1f} to {high:.1f}.")
