"""Window and level of the scan that is shown, and the choice among its channels."""

from __future__ import annotations

from typing import Any

from napari.layers import Image
from qtpy.QtCore import QObject, Signal

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.intensity_windows import AUTOMATIC, CT_WINDOWS, FULL_RANGE, Range
from napari_dycon.widgets.layers.layer_stack import CaseKey, LayerStack

CUSTOM = "Custom"
DEFAULT_CHANNEL = "image"  # of projects whose scans have one channel
MIN_WIDTH_FRACTION = 1e-3  # narrowest window, of the full range


class IntensityWindow(QObject):
    """Display range of the visible channel.

    A preset that the user chooses for CT stays for later cases. Other scans have arbitrary
    intensities, so each case starts with its automatic range. A range that the user sets stays for
    that scan.
    """

    changed = Signal()  # range, preset or channel

    def __init__(self, layers: LayerStack) -> None:
        super().__init__(layers)
        self._layers = layers
        self._ct_preset: str | None = None  # chosen by the user
        self.preset = AUTOMATIC
        self._is_applying = False
        # Set by the user, by channel, for each scan.
        self._custom: dict[CaseKey, dict[int, Range]] = {}

    def preset_names(self) -> list[str]:
        """Presets for the active case."""
        case = self._layers.session.case
        ct_names = list(CT_WINDOWS) if case is not None and case.is_ct else []
        return [*ct_names, AUTOMATIC, FULL_RANGE]

    def start_case(self, case: ActiveCase) -> None:
        """Choose the preset with which a case is shown."""
        self.preset = AUTOMATIC
        if case.is_ct:
            self.preset = self._ct_preset or ("Brain" if case.is_head else "Soft tissue")
        if self._custom.get(self._layers.make_case_key(case)):
            self.preset = CUSTOM

    def _use_custom(self) -> None:
        """Keep the range of the visible channel as the one that the user set."""
        case, shown = self._layers.session.case, self.range
        self.preset = CUSTOM
        if case is not None and shown is not None:
            self._custom.setdefault(self._layers.make_case_key(case), {})[self.channel] = shown

    def get_range(self, case: ActiveCase, index: int) -> Range:
        """Return the range of a channel under the current preset."""
        custom = self._custom.get(self._layers.make_case_key(case), {})
        if self.preset == CUSTOM and index in custom:
            return custom[index]
        if case.is_ct and self.preset in CT_WINDOWS:
            return CT_WINDOWS[self.preset]
        statistics = case.statistics[index]
        return statistics.full if self.preset == FULL_RANGE else statistics.automatic

    def choose_preset(self, name: str) -> None:
        """Show all channels under a preset."""
        case = self._layers.session.case
        if case is None or name not in self.preset_names():
            return
        self.preset = name
        self._custom.pop(self._layers.make_case_key(case), None)
        if case.is_ct:
            self._ct_preset = name
        layers = self._layers.find_layers("image")
        for layer, index in zip(reversed(layers), range(len(layers)), strict=True):
            self.apply(layer, self.get_range(case, index))
        self.changed.emit()

    # ---- The visible channel -----------------------------------------------------------------

    def find_layer(self) -> Image | None:
        """Layer of the channel that is seen: the topmost visible one."""
        layers: list[Image] = self._layers.find_layers("image")
        return next((layer for layer in reversed(layers) if self._is_seen(layer)), None)

    def _is_seen(self, layer: Image) -> bool:
        is_in_slices = self._layers.is_layer_shown_in_slices(layer)  # beside the 3D view
        return bool(layer.visible if is_in_slices is None else is_in_slices)

    @property
    def channel(self) -> int:
        """Index of the channel that is seen; 0 if all are hidden."""
        layers, layer = self._layers.find_layers("image"), self.find_layer()
        return 0 if layer is None else len(layers) - 1 - layers.index(layer)

    def channel_names(self) -> list[str]:
        """Names of the channels; "intensity" for the only channel without a name of its own."""
        project = self._layers.session.project
        names = list(project.channels) if project is not None else []
        return ["intensity"] if names in ([], [DEFAULT_CHANNEL]) else names

    def show_channel(self, index: int) -> None:
        """Show one channel and hide the others."""
        layers = self._layers.find_layers("image")
        if not layers:
            return
        shown = layers[len(layers) - 1 - index % len(layers)]
        if self._layers.is_3d:  # which shows surfaces only
            self._layers.channels_in_slices = {layer: layer is shown for layer in layers}
            self._layers.visibility_applied.emit()
        else:
            shown.visible = True  # first, so that the canvas is never empty
            for layer in layers:
                if layer is not shown and layer.visible:
                    layer.visible = False
        self.changed.emit()

    def show_next_channel(self) -> None:
        """Show the next channel of a scan with several."""
        self.show_channel(self.channel + 1)

    @property
    def range(self) -> Range | None:
        """Lowest and highest intensity shown; ``None`` without a scan."""
        layer = self.find_layer()
        if layer is None:
            return None
        low, high = layer.contrast_limits
        return float(low), float(high)

    def set_range(self, low: float, high: float) -> None:
        """Show the visible channel from ``low`` (black) to ``high`` (white)."""
        layer, case = self.find_layer(), self._layers.session.case
        if layer is None or case is None:
            return
        full_low, full_high = case.statistics[self.channel].full
        high = max(high, low + MIN_WIDTH_FRACTION * (full_high - full_low))
        self.apply(layer, (low, high))
        self._use_custom()
        self.changed.emit()

    def watch(self, layer: Image) -> None:
        """Follow changes in napari's own controls of a layer."""
        layer.events.contrast_limits.connect(self._on_layer_changed)
        layer.events.visible.connect(self._on_layer_changed)

    def apply(self, layer: Image, limits: Range) -> None:
        """Set the range of a layer without calling it custom."""
        self._is_applying = True
        try:
            low, high = layer.contrast_limits_range
            if limits[0] < low or limits[1] > high:
                layer.contrast_limits_range = (min(low, limits[0]), max(high, limits[1]))
            layer.contrast_limits = limits
        finally:
            self._is_applying = False

    def _on_layer_changed(self, event: Any) -> None:
        if self._is_applying or self._layers.is_suppressed:
            return
        if event.type == "contrast_limits" and event.source is self.find_layer():
            self._use_custom()
        self.changed.emit()
