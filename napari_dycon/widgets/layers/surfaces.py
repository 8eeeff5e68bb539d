"""Surfaces of the structures, shown in the 3D view instead of scan, maps and masks.

The layers of the surfaces exist only while the 3D view is open: napari is slow with surfaces in
slices, and those of an earlier state can never be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Layer
from qtpy.QtCore import QObject, QTimer

from napari_dycon.annotation.surfaces import MAX_FACES, SurfaceMesh, extract_surfaces
from napari_dycon.core.colormaps import parse_color
from napari_dycon.core.types import LabelArray
from napari_dycon.project.models import ClassInfo
from napari_dycon.widgets.layers.camera import SolidCamera
from napari_dycon.widgets.layers.colormaps import SURFACE_WHITENESS, lighten, shade
from napari_dycon.widgets.layers.layer_stack import METADATA_KEY, LayerStack
from napari_dycon.widgets.layers.napari_internals import connect_before_napari
from napari_dycon.widgets.layers.napari_layers import StructureSurface
from napari_dycon.widgets.layers.opengl import defer_deletions, is_software_renderer

OVER_LABEL_OPACITY = 0.5  # of the prediction where the label is shown, too
UPDATE_MS = 400  # after an edit while the 3D view is open
PATIENCE_MS = 500  # after which a message says what is being computed
MAX_FACES_SOFTWARE = 40_000  # without a graphics card
COMPUTING_TEXT = "Computing surfaces…"
SOFTWARE_TEXT = "Surfaces are coarse: 3D is drawn without a graphics card here."
EMPTY_TEXT = "Nothing to show in 3D yet: this case has neither a label nor a prediction."


@dataclass(frozen=True)
class JoinedSurfaces:
    """Surfaces of all structures of a label or a prediction, as one mesh."""

    role: str
    vertices: npt.NDArray[np.float32]
    faces: npt.NDArray[np.int32]
    colors: npt.NDArray[np.float32]  # RGBA of each vertex


class Surfaces(QObject):
    """Computes surfaces in the background when the 3D view opens or a label changes in it."""

    def __init__(self, layers: LayerStack) -> None:
        super().__init__(layers)
        defer_deletions()
        self._layers = layers
        self._session = layers.session
        self._viewer = layers.viewer
        self._camera = SolidCamera(layers.viewer)
        self._viewed_case: str | None = None  # case that was seen from the front
        self._classes: list[ClassInfo] = []  # that were computed last
        self._request_id = 0
        self._pending: list[JoinedSurfaces] = []  # not shown yet
        self._compute_timer = self._make_timer(self._compute)
        self._show_timer = self._make_timer(self._show_next)
        self._patience_timer = self._make_timer(self._ask_for_patience)
        # Layers are hidden before napari slices them in 3D, and shown after it has sliced in 2D.
        dims = self._viewer.dims.events
        connect_before_napari(dims.ndisplay, self._on_changing)
        dims.ndisplay.connect(self._on_changed, position="last")
        dims.order.connect(self._on_order_changed, position="last")
        session = self._session
        session.case_shown.connect(self._on_case_shown)  # before the layers show another case
        self._signals = (
            session.label_edited,
            session.label_saved,
            session.prediction_changed,
        )
        for signal in self._signals:
            signal.connect(self._on_edited)
        session.cases_changed.connect(self._on_cases_changed)
        layers.visibility_applied.connect(self._update_opacity)

    def close(self) -> None:
        """Release the viewer and the session."""
        self._stop()
        dims = self._viewer.dims.events
        dims.ndisplay.disconnect(self._on_changing)
        dims.ndisplay.disconnect(self._on_changed)
        dims.order.disconnect(self._on_order_changed)
        self._session.case_shown.disconnect(self._on_case_shown)
        for signal in self._signals:
            signal.disconnect(self._on_edited)
        self._session.cases_changed.disconnect(self._on_cases_changed)
        self._layers.visibility_applied.disconnect(self._update_opacity)
        self._camera.close()

    def _make_timer(self, callback: Any) -> QTimer:
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.timeout.connect(callback)
        return timer

    def _stop(self) -> None:
        """Drop what is being computed or waits to be shown."""
        self._request_id += 1
        self._pending = []
        for timer in (self._compute_timer, self._show_timer, self._patience_timer):
            timer.stop()

    # ---- Entering and leaving ----------------------------------------------------------------

    def _on_changing(self, _: object) -> None:
        """Act before napari changes between slices and 3D."""
        if self._viewer.dims.ndisplay == 3:
            if self._session.case is not None and not self._layers.is_3d:
                self._enter()
        elif self._layers.is_3d:
            self._stop()
            self._remove_surfaces()
            self._camera.restore()

    def _on_changed(self, _: object) -> None:
        """Act after napari has changed between slices and 3D."""
        if not self._layers.is_3d:
            return
        if self._viewer.dims.ndisplay == 3:
            self._fit_scan()
            if self._viewed_case != self._session.require_case().id:
                self._viewed_case = self._session.require_case().id
                self._camera.look_from_front()
            return
        self._layers.is_3d = False
        with self._layers.suppress_events():
            for image, was_visible in self._layers.channels_in_slices.items():
                if image in self._viewer.layers and image.visible != was_visible:
                    image.visible = was_visible
        self._layers.channels_in_slices = {}
        self._layers.apply_visibility()
        self._session.message.emit("info", "")

    def _fit_scan(self) -> None:
        """Fit the scan into the view, until the extent of the structures is known."""
        image = self._session.require_case().image
        spacing_mm = np.array(image.spacing_mm)
        self._camera.show(np.zeros(3), (np.array(image.shape) - 1) * spacing_mm)
        self._camera.fit()

    def _enter(self) -> None:
        self._layers.is_3d = True
        with self._layers.suppress_events():
            for image in self._layers.find_layers("image"):
                self._layers.channels_in_slices[image] = image.visible
                if image.visible:
                    image.visible = False
        self._layers.apply_visibility()
        self._camera.enter()
        self._patience_timer.start(PATIENCE_MS)
        self._compute_timer.start(0)

    def _on_case_shown(self, case: object) -> None:
        """Return to slices, as another case is shown."""
        if case is None:  # the project was closed
            self._viewed_case = None
        elif not self._layers.is_3d and self._viewer.dims.ndisplay == 3:
            self._viewer.dims.ndisplay = 2  # the empty canvas was in 3D
        self._leave()

    def _leave(self) -> None:
        """Return to slices."""
        if self._layers.is_3d:
            self._viewer.dims.ndisplay = 2

    def _on_order_changed(self, _: object) -> None:
        """Show slices of the plane that was chosen."""
        self._leave()

    def _on_edited(self, *_: object) -> None:
        """Follow an edit of the label or a new prediction."""
        if self._layers.is_3d:
            self._compute_timer.start(UPDATE_MS)

    def _on_cases_changed(self) -> None:
        """Follow changes of structures and their colors; the signal also has other causes."""
        if self._layers.classes() != self._classes:
            self._on_edited()

    # ---- Surfaces ----------------------------------------------------------------------------

    def _ask_for_patience(self) -> None:
        self._session.message.emit("info", COMPUTING_TEXT)

    def _compute(self) -> None:
        case = self._session.case
        if case is None or not self._layers.is_3d:
            return
        self._request_id += 1
        request_id, spacing = self._request_id, case.image.spacing_mm
        label, prediction = case.label.copy(), case.prediction
        self._classes = classes = [c.model_copy() for c in self._layers.classes()]
        is_software = is_software_renderer()
        max_faces = MAX_FACES_SOFTWARE if is_software else MAX_FACES

        def compute() -> list[JoinedSurfaces]:
            arrays = {"label": label, "prediction": prediction}
            return build_surfaces(arrays, classes, spacing, max_faces)

        def on_done(surfaces: list[JoinedSurfaces]) -> None:
            if request_id != self._request_id:
                return  # left, or edited since
            self._patience_timer.stop()
            self._session.message.emit("info", "")  # no longer computing
            if not surfaces:
                self._session.message.emit("info", EMPTY_TEXT)
            elif is_software:
                self._session.message.emit("info", SOFTWARE_TEXT)
            self._pending = surfaces
            self._fit_structures(surfaces, spacing)
            self._remove_surfaces(keep={item.role for item in surfaces})
            self._show_timer.start(0)

        self._session.task_runner.submit(compute, on_done, self._session.report_error)

    def _fit_structures(
        self, surfaces: Sequence[JoinedSurfaces], spacing_mm: Sequence[float]
    ) -> None:
        """Fit the structures into the view when they are shown first."""
        if surfaces and not self._list_surfaces():
            ends = [(item.vertices.min(axis=0), item.vertices.max(axis=0)) for item in surfaces]
            low, high = np.min(ends, axis=(0, 1)), np.max(ends, axis=(0, 1))
            self._camera.show(low * spacing_mm, high * spacing_mm)

    def _show_next(self) -> None:
        """Show the surfaces of one role; napari takes a while to add a layer."""
        if not self._pending or not self._layers.is_3d:
            return
        item = self._pending.pop(0)
        case = self._session.require_case()
        settings = self._layers.build_settings(case, "surface")
        settings["metadata"][METADATA_KEY]["of"] = item.role
        settings |= {
            "name": f"{item.role} (3D)",
            "opacity": self._choose_opacity(item.role),
            "visible": self._layers.is_surface_shown(item.role),
            "shading": "none",  # the light is part of the colors
            "vertex_colors": item.colors,
        }
        old = [layer for layer in self._list_surfaces() if get_role(layer) == item.role]
        with self._layers.suppress_events():
            surface = StructureSurface((item.vertices, item.faces), **settings)
            self._layers.insert(surface)
            for layer in old:
                self._viewer.layers.remove(layer)
            surface.name = settings["name"]  # napari numbers it beside one of the same name
            self._update_opacity()
        if self._pending:
            self._show_timer.start(0)

    def _choose_opacity(self, role: str) -> float:
        """Let the label be seen through the prediction, which is opaque if it is alone."""
        roles = {get_role(layer) for layer in self._list_surfaces()}
        is_alone = "label" not in roles or not self._layers.is_surface_shown("label")
        return OVER_LABEL_OPACITY if role == "prediction" and not is_alone else 1.0

    def _update_opacity(self) -> None:
        for layer in self._list_surfaces():
            opacity = self._choose_opacity(get_role(layer))
            if layer.opacity != opacity:
                layer.opacity = opacity

    def _list_surfaces(self) -> list[Layer]:
        return self._layers.find_layers("surface")

    def _remove_surfaces(self, keep: set[str] | None = None) -> None:
        """Remove surfaces, except those of roles that are to be replaced."""
        surplus = [s for s in self._list_surfaces() if get_role(s) not in (keep or set())]
        with self._layers.suppress_events():
            self._layers.remove_layers(surplus)


def get_role(layer: Layer) -> str:
    """Return whether a surface shows the label or the prediction."""
    return str(layer.metadata[METADATA_KEY]["of"])


def build_surfaces(
    arrays: dict[str, LabelArray | None],
    classes: Sequence[ClassInfo],
    spacing_mm: Sequence[float],
    max_faces: int,
) -> list[JoinedSurfaces]:
    """Build the surfaces of all structures, one mesh for each array that has any."""
    joined = []
    for role, array in arrays.items():
        if array is None:
            continue
        meshes = extract_surfaces(array, [c.value for c in classes], spacing_mm, max_faces)
        if meshes:
            colors = {c.value: parse_color(c.color) for c in classes}
            if role == "prediction":
                colors = {
                    value: lighten(color, SURFACE_WHITENESS) for value, color in colors.items()
                }
            joined.append(join(role, meshes, colors))
    return joined


def join(
    role: str, meshes: dict[int, SurfaceMesh], colors: dict[int, tuple[float, float, float]]
) -> JoinedSurfaces:
    """Join the surfaces of several structures."""
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes.values())])
    return JoinedSurfaces(
        role,
        np.concatenate([mesh.vertices for mesh in meshes.values()]),
        np.concatenate(
            [mesh.faces + start for mesh, start in zip(meshes.values(), starts, strict=False)]
        ).astype(np.int32),
        np.concatenate([shade(colors[value], mesh.brightness) for value, mesh in meshes.items()]),
    )
