"""The brush: what it paints, its size in millimeters, and the gray values it may reach."""

from __future__ import annotations

from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QVBoxLayout,
    QWidget,
)

from napari_dycon.project.models import UNANNOTATED
from napari_dycon.session import Session
from napari_dycon.widgets.annotate.structure_list import Palette
from napari_dycon.widgets.layers.case_layers import CaseLayers
from napari_dycon.widgets.window.helpers import button, guarded, set_enabled, signals_blocked


class Brush(QWidget):
    """Napari's brush in the terms of a person who labels."""

    def __init__(self, session: Session, layers: CaseLayers, palette: Palette) -> None:
        super().__init__()
        self.session = session
        self.layers = layers
        self.paint = button(
            "Paint",
            "Paint the chosen structure",
            lambda: self.use(palette.value),
        )
        self.background = button(
            "Background", "Paint what is surely not the structure", lambda: self.use(0)
        )
        self.unmark = button(
            "Unmark",
            "Take annotations away: what is painted over counts as not annotated again",
            lambda: self.use(UNANNOTATED),
        )
        self.size = QDoubleSpinBox()
        self.size.setRange(0.1, 200.0)
        self.size.setDecimals(1)
        self.size.setSuffix(" mm")
        self.size.setToolTip("Diameter of the brush; also the keys [ and ]")
        self.size.valueChanged.connect(layers.set_brush_mm)
        self.ball = QCheckBox("3D")
        self.ball.setToolTip("Paint balls that reach into the neighboring slices, not discs")
        self.ball.toggled.connect(layers.set_brush_3d)
        self.limited = QCheckBox("Only gray values")
        self.limited.setProperty(
            "dycon_tip", "The brush reaches only voxels of the scan within this range"
        )
        self.limited.toggled.connect(guarded(session, self._limit))
        self.low, self.high = QDoubleSpinBox(), QDoubleSpinBox()
        for box, tip in ((self.low, "Lowest"), (self.high, "Highest")):
            box.setRange(-1e6, 1e6)
            box.setDecimals(1)
            box.setToolTip(f"{tip} gray value that the brush paints")
            box.valueChanged.connect(self._range_edited)
        self.pick = button(
            "Pick",
            "Click into the scan: its gray values there become the range (key R over the scan)",
            guarded(session, self._pick_next_click),
        )
        tools = QHBoxLayout()
        for item in (self.paint, self.background, self.unmark):
            tools.addWidget(item)
        grid = QGridLayout()
        grid.addWidget(QLabel("Size"), 0, 0)
        grid.addWidget(self.size, 0, 1)
        grid.addWidget(self.ball, 0, 2)
        grid.addWidget(self.limited, 1, 0, 1, 2)
        grid.addWidget(self.pick, 1, 2)
        grid.addWidget(self.low, 2, 0, 1, 2)
        grid.addWidget(self.high, 2, 2)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(tools)
        layout.addLayout(grid)
        layers.size_changed.connect(self._show_size)
        session.case_shown.connect(self._refresh)
        session.annotation.paint_range_changed.connect(self._show_range)
        self._show_size()
        self._refresh()

    def use(self, value: int) -> None:
        """Take the brush to paint a value."""
        layer = self.layers.layer("label")
        if layer is not None:
            self.layers.viewer.layers.selection.active = layer
            layer.visible = True
            layer.limits.template = None
            layer.selected_label = value
            layer.mode = "paint"

    def pick_at(self, place: tuple[float, ...]) -> None:
        """Limit painting to gray values like those at a place in mm."""
        view = self.session.case
        if view is not None:
            z, y, x = (round(p / s) for p, s in zip(place[-3:], view.image.spacing_mm, strict=True))
            self._pick((z, y, x))

    def _refresh(self, *_: object) -> None:
        why_not = self.session.edit_blocked_reason()
        for item in (self.paint, self.background, self.unmark, self.pick, self.limited):
            set_enabled(item, why_not)
        view = self.session.case
        if view is not None and not self.limited.isChecked():
            low, high = view.intensity_ranges[0]
            with signals_blocked(self.low), signals_blocked(self.high):
                self.low.setValue(low)
                self.high.setValue(high)

    def _show_size(self) -> None:
        with signals_blocked(self.size), signals_blocked(self.ball):
            self.size.setValue(self.layers.brush_mm)
            self.ball.setChecked(self.layers.brush_3d)

    def _limit(self, on: bool) -> None:
        gray = (self.low.value(), self.high.value()) if on else None
        if gray is not None and gray[0] > gray[1]:
            gray = gray[1], gray[0]
        self.session.annotation.set_paint_range(gray)

    def _range_edited(self, _: float) -> None:
        if self.limited.isChecked():
            guarded(self.session, self._limit)(True)

    def _show_range(self, gray: tuple[float, float] | None) -> None:
        with signals_blocked(self.limited), signals_blocked(self.low), signals_blocked(self.high):
            self.limited.setChecked(gray is not None)
            if gray is not None:
                self.low.setValue(gray[0])
                self.high.setValue(gray[1])

    def _pick_next_click(self) -> None:
        """Let the next click into the canvas choose the range."""

        def clicked(voxel: tuple[int, int, int]) -> None:
            guarded(self.session, self._pick)(voxel)

        self.layers.on_next_click(clicked)
        self.session.message.emit("info", "Click into the scan to pick the range of gray values.")

    def _pick(self, voxel: tuple[int, int, int]) -> None:
        low, high = self.session.annotation.pick_intensity_range(voxel)
        self.session.message.emit("info", f"Painting gray values {low:.1f} to {high:.1f} only.")
