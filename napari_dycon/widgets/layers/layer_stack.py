"""Layers of a case in napari's layer list, identified by role."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.components import ViewerModel
from napari.layers import Layer
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QObject, Signal

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.core.colormaps import DIFFERENCE_OPACITY, DISAGREEMENT_OPACITY
from napari_dycon.project.models import ClassInfo
from napari_dycon.session import Session
from napari_dycon.widgets.layers.colormaps import (
    FILL_OPACITY,
    build_difference_colormap,
    build_label_colormap,
    build_prediction_colormap,
    build_proposal_colormap,
    have_same_colors,
)
from napari_dycon.widgets.layers.napari_internals import set_rows_hidden

AXIS_LABELS = ("superior", "posterior", "left")
METADATA_KEY = "napari_dycon"
CaseKey = tuple[str, str, tuple[int, ...]]  # folder of the project, id, and size of the scan
ROLES = (  # bottom to top
    "image",
    "uncertainty",
    "disagreement",
    "prediction",
    "proposal",
    "label",
    "difference",
    "surface",
    "marker",
    "roi",
)
HIDDEN_ROLES = ("disagreement", "difference")  # until the user shows them
SWITCHED_ROLES = tuple(role for role in ROLES if role not in ("image", "surface"))


class LayerStack(QObject):
    """Layers that have a role; other layers of the viewer are not touched.

    ``visible`` and ``opacity`` hold the user's settings for each role, also for later cases.
    """

    visibility_toggled = Signal(str, bool)  # role shown or hidden in napari's list of layers
    visibility_applied = Signal()  # layers, or what slices would show of them in 3D
    placing_case = Signal(bool)  # another case is being shown; false once it is centered
    axis_changed = Signal(int)  # slices are browsed along this axis in the active view

    def __init__(self, session: Session, viewer: ViewerModel, parent: QObject) -> None:
        super().__init__(parent)
        self.session = session
        self.viewer = viewer
        self.visible = {role: role not in HIDDEN_ROLES for role in ROLES}
        self.opacity = dict.fromkeys(ROLES, 1.0) | {
            "uncertainty": 0.6,
            "disagreement": DISAGREEMENT_OPACITY,
            "difference": DIFFERENCE_OPACITY,
            "proposal": 0.9,
        }
        self.empty_roles: set[str] = set()  # roles whose layer exists without content
        self.are_overlays_hidden = False  # for a look at the scan alone
        self.is_3d = False  # surfaces are shown instead of all other layers
        # Whether slices show each channel of the scan, while the 3D view hides all of them.
        self.channels_in_slices: dict[Layer, bool] = {}
        self.show_unannotated = False
        self.is_filled = True  # labels, with an outline
        self._is_suppressed = False
        self._colormap_keys: WeakKeyDictionary[Layer, Hashable] = WeakKeyDictionary()
        self._active_axis: int | None = None  # of the view that was used last

    def make_case_key(self, case: ActiveCase) -> CaseKey:
        """Return what identifies a case among those of all projects."""
        project = self.session.project
        return "" if project is None else str(project.path), case.id, case.image.shape

    def find_layer(self, role: str) -> Any:
        """Layer of a role for the active case, or ``None``."""
        for layer in self.viewer.layers:
            if layer.metadata.get(METADATA_KEY, {}).get("role") == role:
                return layer
        return None

    def find_layers(self, role: str) -> list[Any]:
        """Layers of a role, bottom to top."""
        return [
            layer
            for layer in self.viewer.layers
            if layer.metadata.get(METADATA_KEY, {}).get("role") == role
        ]

    def set_visible(self, role: str, visible: bool) -> None:
        """Show or hide one kind of layer, for this and later cases."""
        self.visible[role] = visible
        self.are_overlays_hidden = False
        self.apply_visibility()

    def is_shown(self, role: str) -> bool:
        """Whether layers of a role are shown: as the user chose, unless something precludes it.

        Colors of the uncertainty could be taken for differences, so both are not shown at once.
        """
        return self.is_shown_in_slices(role) and (role == "image" or not self.is_3d)

    def is_shown_in_slices(self, role: str) -> bool:
        """Whether slices show layers of a role, also beside the 3D view."""
        has_difference = self.visible["difference"] and "difference" not in self.empty_roles
        return (
            self.visible[role]
            and role not in self.empty_roles
            and not (role == "uncertainty" and has_difference)
            and (role == "image" or not self.are_overlays_hidden)
        )

    def is_layer_shown_in_slices(self, layer: Layer) -> bool | None:
        """Whether slices show a layer, also beside the 3D view.

        ``None`` where nothing but the layer itself tells: for the scan without the 3D view, and for
        layers of other origin.
        """
        role = layer.metadata.get(METADATA_KEY, {}).get("role")
        if role == "image":
            return self.channels_in_slices.get(layer)
        return self.is_shown_in_slices(role) if role in SWITCHED_ROLES else None

    def is_surface_shown(self, of: str) -> bool:
        """Whether the surfaces of a role are shown: in 3D, and if its masks are in slices."""
        return self.is_3d and self.visible[of] and not self.are_overlays_hidden

    def apply_visibility(self) -> None:
        """Show or hide existing layers; napari redraws on every assignment."""
        with self.suppress_events():
            for layer in self.viewer.layers:
                role = layer.metadata.get(METADATA_KEY, {}).get("role")
                if role in SWITCHED_ROLES:
                    is_shown = self.is_shown(role)
                elif role == "surface":
                    is_shown = self.is_surface_shown(layer.metadata[METADATA_KEY]["of"])
                else:
                    continue
                if layer.visible != is_shown:
                    layer.visible = is_shown
        set_rows_hidden(self.viewer, self._list_unlisted())
        self.visibility_applied.emit()

    def _list_unlisted(self) -> list[Layer]:
        """Layers that are kept for later only, and would be clutter in napari's list."""
        return [
            layer
            for layer in self.viewer.layers
            if layer.metadata.get(METADATA_KEY, {}).get("role") in self.empty_roles
        ]

    def toggle_overlays(self) -> None:
        """Hide everything but the scan, or show it again as before."""
        self.are_overlays_hidden = not self.are_overlays_hidden
        self.apply_visibility()
        self.session.message.emit(
            "info", "Overlays are hidden. Press Q to show them." if self.are_overlays_hidden else ""
        )

    def set_opacity(self, role: str, opacity: float) -> None:
        """Set the opacity (0 to 1) of one kind of layer, for this and later cases."""
        self.opacity[role] = opacity
        if (layer := self.find_layer(role)) is not None:
            layer.opacity = opacity

    def build_settings(self, case: ActiveCase, role: str) -> dict[str, Any]:
        """Return the common settings of the layers of a case: scale, units, opacity, metadata."""
        return {
            "scale": case.image.spacing_mm,
            "units": ("mm",) * 3,
            "axis_labels": AXIS_LABELS,
            "metadata": {
                METADATA_KEY: {"case": case.id, "role": role, "source": case.image.source}
            },
            "opacity": self.opacity[role],
            "visible": self.is_shown(role),
        }

    def assign_to_case(self, layer: Layer, case: ActiveCase, role: str) -> None:
        """Assign a layer to a case: set its scale and metadata."""
        settings = self.build_settings(case, role)
        layer.metadata = settings["metadata"]
        if tuple(layer.scale) != tuple(settings["scale"]):
            layer.scale = settings["scale"]

    def insert(self, layer: Layer) -> None:
        """Add a layer at the position of its role; the selected layer stays selected."""
        rank = ROLES.index(layer.metadata[METADATA_KEY]["role"])
        active = self.viewer.layers.selection.active
        higher = [
            index
            for index, other in enumerate(self.viewer.layers)
            if (role := other.metadata.get(METADATA_KEY, {}).get("role")) in ROLES
            and ROLES.index(role) > rank
        ]
        self.viewer.layers.insert(min(higher, default=len(self.viewer.layers)), layer)
        self.viewer.layers.selection.active = active

    def track_visibility(self, layer: Layer) -> None:
        """Remember when a layer is shown or hidden in napari's own list."""

        def on_visible_changed(_: object) -> None:
            role, visible = layer.metadata[METADATA_KEY]["role"], layer.visible
            if not self._is_suppressed and visible != self.visible[role]:
                self.set_visible(role, visible)
                self.visibility_toggled.emit(role, visible)

        layer.events.visible.connect(on_visible_changed)

    def remove_all(self) -> None:
        """Remove all layers of the case."""
        case_layers = [  # scans that were opened as files carry the key, too
            layer for layer in self.viewer.layers if "role" in layer.metadata.get(METADATA_KEY, {})
        ]
        self.remove_layers(case_layers)

    def remove_layers(self, surplus: Sequence[Layer]) -> None:
        """Remove layers; views are rebuilt once, which takes napari up to 0.1 s."""
        if not surplus:
            return
        with self.viewer.layers.batched_update():
            for layer in surplus:
                self.viewer.layers.remove(layer)

    def build_colormap(self, role: str) -> DirectLabelColormap:
        """Build the colormap of labels, a prediction, a proposal or the difference."""
        if role == "difference":
            return build_difference_colormap()
        if role == "prediction":
            return build_prediction_colormap(self.classes())
        if role == "proposal":
            return build_proposal_colormap(self.classes())
        fill_opacity = FILL_OPACITY if self.is_filled else 0.0
        return build_label_colormap(self.classes(), self.show_unannotated, fill_opacity)

    def update_colormaps(self, *_: object) -> None:
        """Follow changes of structures and their colors."""
        colors = tuple((c.value, c.color) for c in self.classes())
        key = (colors, self.show_unannotated, self.is_filled)
        for role in ("label", "prediction", "proposal"):
            layer = self.find_layer(role)
            if layer is None or self._colormap_keys.get(layer) == key:
                continue
            self._colormap_keys[layer] = key
            colormap = self.build_colormap(role)  # takes 20 ms
            if not have_same_colors(layer.colormap, colormap):
                layer.colormap = colormap

    def set_filled(self, is_filled: bool) -> None:
        """Fill the structures of the label, or show their outlines only."""
        self.is_filled = is_filled
        self.update_colormaps()

    def classes(self) -> list[ClassInfo]:
        """Structures of the open project."""
        return self.session.project.classes if self.session.project is not None else []

    @property
    def axis(self) -> int:
        """Axis along which slices are browsed in the active view; the first one in 3D."""
        if self._active_axis is not None and self.viewer.dims.ndisplay == 2:
            return self._active_axis
        return self.main_axis

    @property
    def main_axis(self) -> int:
        """Axis along which slices are browsed in the main view; the first one in 3D."""
        return next(iter(self.viewer.dims.not_displayed), 0)

    def set_active_axis(self, axis: int) -> None:
        """Let commands for a slice act on slices along another axis."""
        if axis != self._active_axis:
            self._active_axis = axis
            self.axis_changed.emit(axis)

    @property
    def slice_index(self) -> int:
        """Index of the current slice along ``axis``."""
        return self.get_slice_index(self.axis)

    def get_slice_index(self, axis: int) -> int:
        """Return the index of the current slice along an axis."""
        case = self.session.case
        if case is None:
            return 0
        index = self.viewer.dims.point[axis] / case.image.spacing_mm[axis]
        return int(np.clip(round(index), 0, case.image.shape[axis] - 1))

    @property
    def is_suppressed(self) -> bool:
        """Whether the program itself is changing layers."""
        return self._is_suppressed

    @contextlib.contextmanager
    def suppress_events(self) -> Iterator[None]:
        """Suppress handlers of user edits while the program itself changes layers."""
        was_suppressed, self._is_suppressed = self._is_suppressed, True
        try:
            yield
        finally:
            self._is_suppressed = was_suppressed
