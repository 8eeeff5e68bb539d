"""Which overlays are shown, how strongly, and what their colors mean."""

from __future__ import annotations

from functools import partial

from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QCheckBox,
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QSlider,
    QSpinBox,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_dycon.core.colormaps import ADDED_COLOR, MISSED_COLOR, OTHER_STRUCTURE_COLOR
from napari_dycon.session import Session
from napari_dycon.widgets.layers.case_layers import CaseLayers
from napari_dycon.widgets.review.color_bar import ColorBar

ROLE_TEXTS = {
    "label": ("Label", "Your annotation: filled, with a solid outline (K)"),
    "prediction": ("Prediction", "Outline predicted by the network, dashed (T)"),
    "uncertainty": (
        "Uncertainty",
        "Entropy of the predicted probabilities (H). Not shown together with the difference",
    ),
    "disagreement": ("Disagreement", "Where the networks of the ensemble disagree"),
    "difference": ("Difference", "Where label and prediction differ"),
}
DIFFERENCE_LEGEND = (
    ("predicted only", ADDED_COLOR),
    ("label only", MISSED_COLOR),
    ("different", OTHER_STRUCTURE_COLOR),
)
NUMBER_MARGIN_PX = 8
REGION_DELAY_MS = 300
N_COLUMNS = 3


class OverlayControls(QWidget):
    """A toggle and an opacity for each overlay, the uncertainty threshold, and a color bar."""

    def __init__(self, session: Session, layers: CaseLayers) -> None:
        super().__init__()
        self._layers, self._session = layers, session
        self._region_timer = QTimer(self)  # regions are found once the slider rests
        self._region_timer.setSingleShot(True)
        self._region_timer.setInterval(REGION_DELAY_MS)
        self._region_timer.timeout.connect(self._find_regions)
        self._region_timer.start()
        self.toggles: dict[str, QCheckBox] = {}
        self.opacities: dict[str, QSpinBox] = {}
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(3)
        for role, (text, tip) in ROLE_TEXTS.items():
            self._add_role(grid, role, text, tip)
            if role == "label":
                self.fill_toggle = QCheckBox("Fill label")
                self.fill_toggle.setToolTip("Fill structures lightly, or show their outlines only")
                self.fill_toggle.setChecked(layers.is_filled)
                self.fill_toggle.toggled.connect(layers.set_filled)
                grid.addWidget(self.fill_toggle, grid.rowCount(), 0, 1, N_COLUMNS)
        grid.addWidget(make_difference_legend(), grid.rowCount(), 0, 1, N_COLUMNS)
        self._add_threshold(grid)
        self.color_bar = ColorBar(session, layers)
        grid.addWidget(self.color_bar, grid.rowCount(), 0, 1, N_COLUMNS)
        grid.addWidget(self.color_bar.note_label, grid.rowCount(), 0, 1, N_COLUMNS)
        grid.setColumnStretch(1, 1)
        layers.visibility_toggled.connect(self._on_visibility_toggled)

    def _add_role(self, grid: QGridLayout, role: str, text: str, tip: str) -> None:
        row, name = grid.rowCount(), f"Opacity of the {text.lower()}"
        checkbox = QCheckBox(text)
        checkbox.setToolTip(tip)
        checkbox.setChecked(self._layers.visible[role])
        checkbox.toggled.connect(partial(self._layers.set_visible, role))
        self.toggles[role] = checkbox
        number = QSpinBox()
        number.setRange(0, 100)
        number.setSuffix(" %")
        make_compact(number)
        number.setValue(round(self._layers.opacity[role] * 100))
        slider = QSlider(Qt.Orientation.Horizontal)
        slider.setRange(0, 100)
        slider.setValue(number.value())
        for control in (slider, number):
            control.setToolTip(name)
            control.setAccessibleName(name)
        number.valueChanged.connect(slider.setValue)
        slider.valueChanged.connect(number.setValue)
        number.valueChanged.connect(lambda value: self._layers.set_opacity(role, value / 100))
        self.opacities[role] = number
        for column, control in enumerate((checkbox, slider, number)):
            grid.addWidget(control, row, column)

    def _add_threshold(self, grid: QGridLayout) -> None:
        tip = (
            "Hide uncertainty and disagreement below this value (0 to 1), and leave out uncertain "
            "regions below it"
        )
        label = QLabel("Uncertainty threshold")
        self.threshold = QDoubleSpinBox()
        self.threshold.setRange(0.0, 1.0)
        self.threshold.setSingleStep(0.05)
        self.threshold.setDecimals(2)
        make_compact(self.threshold)
        self.threshold.setValue(self._layers.overlays.threshold)
        self.threshold_slider = QSlider(Qt.Orientation.Horizontal)
        self.threshold_slider.setRange(0, 100)
        self.threshold_slider.setValue(round(self.threshold.value() * 100))
        for control in (label, self.threshold, self.threshold_slider):
            control.setToolTip(tip)
            control.setAccessibleName("Uncertainty threshold")
        self.threshold.valueChanged.connect(self._on_threshold_changed)
        self.threshold_slider.valueChanged.connect(lambda v: self.threshold.setValue(v / 100))
        line = QHBoxLayout()
        for control in (label, self.threshold_slider, self.threshold):
            line.addWidget(control)
        grid.addLayout(line, grid.rowCount(), 0, 1, N_COLUMNS)

    def _on_threshold_changed(self, value: float) -> None:
        with signals_blocked(self.threshold_slider):
            self.threshold_slider.setValue(round(value * 100))
        self._layers.overlays.set_threshold(value)
        self.color_bar.refresh()
        self._region_timer.start()

    def _find_regions(self) -> None:
        self._session.review.set_threshold(self.threshold.value())

    def _on_visibility_toggled(self, role: str, visible: bool) -> None:
        if role in self.toggles:
            self.toggles[role].setChecked(visible)


def make_compact(number: QAbstractSpinBox) -> None:
    """Leave the width to the slider beside a number; arrow keys and wheel still change it."""
    number.setButtonSymbols(QAbstractSpinBox.ButtonSymbols.NoButtons)
    number.setAlignment(Qt.AlignmentFlag.AlignRight)
    width = number.fontMetrics().horizontalAdvance("100 %") + NUMBER_MARGIN_PX
    # The style sheet of napari takes precedence over the size of the widget.
    number.setStyleSheet(f"min-width: {width}px; max-width: {width}px; padding: 1px;")


def make_difference_legend() -> QLabel:
    """Create a line with the colors of differences and what they mean."""
    items = []
    for text, color in DIFFERENCE_LEGEND:
        name = QColor.fromRgbF(*color).name()
        items.append(f'<span style="color: {name}">■</span> {text}')
    result = QLabel(" ".join(items))
    result.setTextFormat(Qt.TextFormat.RichText)
    result.setToolTip("Colors of the difference between label and prediction")
    result.setIndent(0)  # the line just fits into the narrowest panel
    return result
