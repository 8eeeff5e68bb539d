"""Buttons for the tools of the label: move, brush, polygon and fill."""

from __future__ import annotations

from functools import partial
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QToolButton, QWidget

from napari_dycon.session import Session
from napari_dycon.widgets.layers.case_layers import CaseLayers
from napari_dycon.widgets.window.helpers import set_enabled

# napari's mode, text, tooltip
TOOLS = (
    ("pan_zoom", "Move", "Move the image, and the crosshair by a click (Z)"),
    ("paint", "Brush", "Paint a structure or background, or erase, as chosen under Annotate"),
    ("polygon", "Polygon", "Draw an outline; a double click closes it, Esc cancels it (3)"),
    ("fill", "Fill", "Fill a connected area of one structure in the slice (F)"),
)


class ToolButtons(QWidget):
    """The tool of the label layer, which all views share."""

    def __init__(self, session: Session, layers: CaseLayers) -> None:
        super().__init__()
        self._session = session
        self._layers = layers
        self._label: Any = None  # layer whose tool is shown
        self.buttons: dict[str, QToolButton] = {}
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(2)
        for mode, text, tip in TOOLS:
            button = QToolButton()
            button.setText(text)
            button.setProperty("dycon_tip", tip)
            button.setCheckable(True)
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            button.clicked.connect(partial(self._choose, mode))
            self.buttons[mode] = button
            row.addWidget(button)
        session.case_shown.connect(self._on_case_shown)
        layers.axis_changed.connect(self._on_case_shown)  # also when 3D is entered or left
        self._on_case_shown()

    def _choose(self, mode: str, _checked: bool = False) -> None:
        """Select the label layer and one of its tools."""
        label = self._layers.find_layer("label")
        if label is not None:
            self._layers.viewer.layers.selection.active = label
            label.mode = mode
        self._refresh()

    def _on_case_shown(self, *_: object) -> None:
        label = self._layers.find_layer("label")
        if label is not self._label and label is not None:
            label.events.mode.connect(self._refresh)
        self._label = label
        reason = self._session.edit_blocked_reason()
        if not reason and self._layers.viewer.dims.ndisplay != 2:
            reason = "switch to the 2D view first"
        for mode, button in self.buttons.items():
            set_enabled(button, "" if mode == "pan_zoom" else reason)
        self._refresh()

    def _refresh(self, *_: object) -> None:
        mode = "" if self._label is None else str(self._label.mode)
        if mode == "erase":  # napari's eraser is a brush, too
            mode = "paint"
        for name, button in self.buttons.items():
            button.setChecked(name == mode)
