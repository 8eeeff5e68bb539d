"""Toolbar above the canvas: tools, planes, linked views, channel, window and level."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from napari.viewer import Viewer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QToolButton,
    QWidget,
)

from napari_dycon.application.intensity_windows import choose_decimals
from napari_dycon.session import Session
from napari_dycon.widgets.layers.case_layers import CaseLayers
from napari_dycon.widgets.layers.intensity_window import CUSTOM
from napari_dycon.widgets.views.compact_toolbar import CompactToolbar
from napari_dycon.widgets.views.histogram import HistogramPopup
from napari_dycon.widgets.views.linked_views import LinkedViews
from napari_dycon.widgets.views.planes import Plane
from napari_dycon.widgets.views.tool_buttons import ToolButtons
from napari_dycon.widgets.window.helpers import make_plain_label, signals_blocked

NAME = "Views"
SHORT_NAMES = {Plane.AXIAL: "Ax", Plane.CORONAL: "Cor", Plane.SAGITTAL: "Sag"}
MAX_VALUE = 1e7


class ViewToolbar(CompactToolbar):
    """Controls of the views; all are disabled while no case is shown."""

    def __init__(
        self, session: Session, viewer: Viewer, layers: CaseLayers, views: LinkedViews
    ) -> None:
        super().__init__(NAME)
        self.setObjectName("napari-dycon-views")
        self.setMovable(False)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.PreventContextMenu)
        self._session = session
        self._viewer = viewer
        self._views = views
        self._window = views.intensity_window
        self._choices: tuple[str, ...] = ()  # names of channels and presets
        self.histogram = HistogramPopup(session, self._window, self)
        self.tools = ToolButtons(session, layers)
        self.addWidget(self.tools)
        self.addSeparator()
        self._build_plane_buttons()
        self._build_view_buttons()
        self.addSeparator()
        self._build_channel()
        self._build_window()
        for signal in (
            session.case_shown,
            views.arrangement_changed,
            self._window.changed,
        ):
            signal.connect(self._refresh)
        viewer.dims.events.ndisplay.connect(self._refresh)
        self._refresh()

    def disconnect_events(self) -> None:
        """Disconnect from the viewer."""
        self._viewer.dims.events.ndisplay.disconnect(self._refresh)
        self.histogram.close()

    def _build_plane_buttons(self) -> None:
        self.plane_buttons: dict[Plane, QToolButton] = {}
        for plane in (Plane.AXIAL, Plane.CORONAL, Plane.SAGITTAL):
            button = self._add_button(
                plane.title.capitalize(),
                f"Show {plane.title} slices in the main view (Ctrl+E: next plane)",
                partial(self._show_plane, plane),
            )
            button.setCheckable(True)
            self.add_short_text(button, SHORT_NAMES[plane])
            self.plane_buttons[plane] = button
        self.solid_button = self._add_button(
            "3D", "Surfaces of the structures in 3D, and back to slices (Ctrl+Y)", self._toggle_3d
        )
        self.solid_button.setCheckable(True)

    def _build_view_buttons(self) -> None:
        self.addSeparator()
        self.linked_button = self._add_button(
            "Three views",
            "Show axial, coronal and sagittal slices side by side; you can paint in each",
            self._views.toggle_side_views,
        )
        self.linked_button.setCheckable(True)
        self.add_short_text(self.linked_button, "3 views")
        self.crosshair_button = self._add_button(
            "Crosshair",
            "Mark the same position in all views. A click moves it while no tool is active, "
            "Shift and a click always",
            self._toggle_crosshair,
        )
        self.crosshair_button.setCheckable(True)
        self.reset_button = self._add_button(
            "Fit", "Fit the scan into all views (Ctrl+R)", self._viewer.reset_view
        )

    def _build_channel(self) -> None:
        self.channel = QComboBox()
        self.channel.setToolTip("Channel that is shown (Shift+C: next channel)")
        self.channel.setAccessibleName("Channel")
        self.channel.activated.connect(self._window.show_channel)
        self.channel.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
        self._channel_action = self.addWidget(self.channel)

    def _build_window(self) -> None:
        self.preset = QComboBox()
        self.preset.setToolTip("Range of intensities that is displayed")
        self.preset.setAccessibleName("Window preset")
        self.preset.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
        self.preset.textActivated.connect(self._choose_preset)
        self.width_box, self.level_box = QDoubleSpinBox(), QDoubleSpinBox()
        box = QWidget()
        row = QHBoxLayout(box)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        row.addWidget(self.preset)
        for spin_box, letter, tip in (
            (self.width_box, "W", "Width of the displayed range"),
            (self.level_box, "L", "Center of the displayed range"),
        ):
            spin_box.setRange(-MAX_VALUE, MAX_VALUE)
            self.add_number(spin_box)
            spin_box.setKeyboardTracking(False)
            spin_box.setToolTip(f"{tip}; drag with the right button in the scan to change it")
            spin_box.setAccessibleName(tip)
            spin_box.valueChanged.connect(self._apply_window)
            row.addWidget(make_plain_label(letter))
            row.addWidget(spin_box)
        self.width_box.setMinimum(0.0)
        self.histogram_button = QToolButton()
        self.histogram_button.setText("Histogram")
        self.add_short_text(self.histogram_button, "Hist.")
        self.histogram_button.setToolTip("Histogram of the intensities, with the displayed range")
        self.histogram_button.clicked.connect(
            lambda: self.histogram.show_below(self.histogram_button)
        )
        row.addWidget(self.histogram_button)
        self._window_action = self.addWidget(box)

    def _add_button(self, text: str, tip: str, on_click: Callable[[], object]) -> QToolButton:
        button = QToolButton()
        button.setText(text)
        button.setToolTip(tip)
        button.setFocusPolicy(Qt.FocusPolicy.TabFocus)  # keys stay with the canvas
        button.clicked.connect(lambda _checked=False: on_click())
        self.addWidget(button)
        return button

    def _show_plane(self, plane: Plane) -> None:
        if self._viewer.dims.ndisplay != 2:
            self._viewer.dims.ndisplay = 2
        self._views.show_plane(plane)

    def _toggle_3d(self) -> None:
        self._viewer.dims.ndisplay = 3 if self._viewer.dims.ndisplay == 2 else 2

    def _toggle_crosshair(self) -> None:
        self._views.show_crosshair(not self._views.shows_crosshair)

    def _choose_preset(self, name: str) -> None:
        if name != CUSTOM:
            self._window.choose_preset(name)

    def _apply_window(self, _: float) -> None:
        width, level = self.width_box.value(), self.level_box.value()
        self._window.set_range(level - width / 2, level + width / 2)

    def _refresh(self, *_: object) -> None:
        case = self._session.case
        self.setEnabled(case is not None)
        is_flat = self._viewer.dims.ndisplay == 2
        for plane, button in self.plane_buttons.items():
            button.setChecked(is_flat and plane is self._views.main_view.plane)
        self.solid_button.setChecked(not is_flat)
        self.linked_button.setChecked(self._views.has_side_views)
        self.crosshair_button.setChecked(self._views.shows_crosshair)
        names = self._window.preset_names()
        if self._window.preset not in names:
            names.append(self._window.preset)
        set_items(self.preset, names, self._window.preset)
        self._refresh_channels()
        limits = self._window.range
        if limits is not None:
            low, high = limits
            decimals = choose_decimals(limits)
            step = max((high - low) / 50, 10.0**-decimals)
            for spin_box, value in (
                (self.width_box, high - low),
                (self.level_box, (low + high) / 2),
            ):
                with signals_blocked(spin_box):
                    spin_box.setDecimals(decimals)
                    spin_box.setSingleStep(step)
                    spin_box.setValue(value)

    def _refresh_channels(self) -> None:
        names = self._window.channel_names()
        self._channel_action.setVisible(len(names) > 1)
        if len(names) > 1:
            set_items(self.channel, names, names[self._window.channel])
        choices = (*names, *(self.preset.itemText(i) for i in range(self.preset.count())))
        if choices != self._choices:  # of other widths
            self._choices = choices
            self.refit()


def set_items(choice: QComboBox, names: list[str], current: str) -> None:
    """Set the entries of a choice and the current one, without its signals."""
    with signals_blocked(choice):
        if [choice.itemText(i) for i in range(choice.count())] != names:
            choice.clear()
            choice.addItems(names)
        choice.setCurrentText(current)
