"""Surfaces of the structures, shown in the 3D view instead of scan, maps and masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from napari.layers import Layer, Surface
from qtpy.QtCore import QObject, QTimer

from napari_dycon.annotation.surfaces import MAX_FACES, SurfaceMesh, extract_surface
from napari_dycon.core.colormaps import parse_color
from napari_dycon.core.types import LabelArray
from napari_dycon.project.models import ClassInfo
from napari_dycon.widgets.layers.colormaps import lighten, make_flat_colormap
from napari_dycon.widgets.layers.layer_stack import METADATA_KEY, LayerStack
from napari_dycon.widgets.layers.napari_internals import is_software_renderer

OPACITY = {"label": 1.0, "prediction": 0.45}
ORIENTATION = ("away", "down", "right")  # napari's own shows mirror images in 3D
UPDATE_MS = 400  # after an edit in the 3D view
MAX_FACES_SOFTWARE = 40_000  # without a graphics card
COMPUTING_TEXT = "Computing surfaces…"
SOFTWARE_TEXT = "Surfaces are coarse: 3D is drawn without a graphics card here."
EMPTY_TEXT = "Nothing to show in 3D yet: this case has neither a label nor a prediction."


@dataclass(frozen=True)
class _NamedMesh:
    role: str
    info: ClassInfo
    mesh: SurfaceMesh


class Surfaces(QObject):
    """Computes surfaces in the background when the 3D view opens or a label changes in it."""

    def __init__(self, layers: LayerStack) -> None:
        super().__init__(layers)
        self._layers = layers
        self._session = layers.session
        self._viewer = layers.viewer
        self._was_visible: dict[Layer, bool] = {}  # channels of the scan
        self._orientation: Any = None  # of the camera in 2D
        self._viewed_case: str | None = None  # case that was seen from the front
        self._request_id = 0
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._compute)
        # Layers are hidden before napari slices them in 3D, and shown after it has sliced in 2D.
        ndisplay = self._viewer.dims.events.ndisplay
        ndisplay.connect(self._on_entering, position="first")
        ndisplay.connect(self._on_leaving, position="last")
        self._signals = (
            self._session.case_shown,
            self._session.label_edited,
            self._session.prediction_changed,
            self._session.cases_changed,
        )
        for signal in self._signals:
            signal.connect(self._on_changed)

    def close(self) -> None:
        """Release the viewer and the session."""
        self._timer.stop()
        self._request_id += 1
        ndisplay = self._viewer.dims.events.ndisplay
        ndisplay.disconnect(self._on_entering)
        ndisplay.disconnect(self._on_leaving)
        for signal in self._signals:
            signal.disconnect(self._on_changed)

    def _on_entering(self, _: object) -> None:
        if self._viewer.dims.ndisplay == 3 and self._session.case is not None:
            self._enter()

    def _enter(self) -> None:
        self._layers.is_3d = True
        with self._layers.suppress_events():
            for image in self._layers.find_layers("image"):
                self._was_visible.setdefault(image, image.visible)
                image.visible = False
        self._layers.apply_visibility()
        camera = self._viewer.scene.camera
        if self._orientation is None:
            self._orientation = camera.orientation
        camera.orientation = ORIENTATION
        self._session.message.emit("info", COMPUTING_TEXT)
        self._timer.start(0)

    def _on_leaving(self, _: object) -> None:
        if self._viewer.dims.ndisplay == 3 or not self._layers.is_3d:
            return
        self._timer.stop()
        self._request_id += 1
        self._layers.is_3d = False
        with self._layers.suppress_events():
            for image, was_visible in self._was_visible.items():
                if image in self._viewer.layers:
                    image.visible = was_visible
        self._was_visible = {}
        if self._orientation is not None:
            self._viewer.scene.camera.orientation = self._orientation
            self._orientation = None
        self._layers.apply_visibility()
        self._session.message.emit("info", "")

    def _on_changed(self, *_: object) -> None:
        if self._session.case is None:
            self._layers.is_3d = False
            self._was_visible = {}
        elif self._viewer.dims.ndisplay == 3:
            if not self._layers.is_3d or self._has_visible_scan():
                self._enter()
            self._timer.start(UPDATE_MS)

    def _has_visible_scan(self) -> bool:
        """Whether the layers of another case have just been added."""
        return any(image.visible for image in self._layers.find_layers("image"))

    def _compute(self) -> None:
        case = self._session.case
        if case is None:
            return
        self._request_id += 1
        request_id, spacing = self._request_id, case.image.spacing_mm
        arrays = {"label": case.label.copy(), "prediction": case.prediction}
        classes, is_software = self._layers.classes(), is_software_renderer()
        max_faces = MAX_FACES_SOFTWARE if is_software else MAX_FACES

        def on_done(meshes: list[_NamedMesh]) -> None:
            if request_id == self._request_id and self._session.case is case:
                self._show(meshes)
                text = SOFTWARE_TEXT if is_software else ""
                self._session.message.emit("info", text if meshes else EMPTY_TEXT)

        self._session.task_runner.submit(
            lambda: extract_surfaces(arrays, classes, spacing, max_faces),
            on_done,
            self._session.report_error,
        )

    def _show(self, meshes: Sequence[_NamedMesh]) -> None:
        """Replace the surfaces, reusing layers; napari takes long to add one."""
        case = self._session.require_case()
        existing = {
            (layer.metadata[METADATA_KEY]["of"], layer.metadata[METADATA_KEY]["value"]): layer
            for layer in self._layers.find_layers("surface")
        }
        with self._layers.suppress_events():
            for item in meshes:
                settings = self._layers.build_settings(case, "surface")
                settings["metadata"][METADATA_KEY] |= {"of": item.role, "value": item.info.value}
                layer = existing.pop((item.role, item.info.value), None)
                color = parse_color(item.info.color)
                colormap = make_flat_colormap(color if item.role == "label" else lighten(color))
                if layer is None:
                    self._add(item, settings, colormap)
                else:
                    layer.metadata = settings["metadata"]
                    layer.scale = settings["scale"]
                    layer.data = (item.mesh.vertices, item.mesh.faces)
                    layer.colormap = colormap
            for layer in existing.values():
                self._viewer.layers.remove(layer)
        self._layers.apply_visibility()
        if self._viewed_case != case.id:
            self._viewed_case = case.id
            self._look_from_front()

    def _look_from_front(self) -> None:
        """Show the patient as a radiologist expects: from the front, head up, left on the right."""
        self._viewer.reset_view(reset_camera_angle=False)
        self._viewer.scene.camera.set_view_direction(
            view_direction=(0, 1, 0), up_direction=(1, 0, 0)
        )

    def _add(self, item: _NamedMesh, settings: dict[str, Any], colormap: Any) -> None:
        # Copies in other views, which show slices, are made while it is hidden.
        settings |= {"visible": False, "opacity": OPACITY[item.role]}
        layer = Surface(
            (item.mesh.vertices, item.mesh.faces),
            name=f"{item.info.name} ({item.role}, 3D)",
            colormap=colormap,
            shading="smooth",
            **settings,
        )
        self._layers.insert(layer)


def extract_surfaces(
    arrays: dict[str, LabelArray | None],
    classes: Sequence[ClassInfo],
    spacing_mm: Sequence[float],
    max_faces: int,
) -> list[_NamedMesh]:
    """Extract the surfaces of all structures in a label and a prediction."""
    meshes = []
    for role, array in arrays.items():
        for info in classes:
            if array is None:
                continue
            mesh = extract_surface(array == info.value, spacing_mm, max_faces)
            if mesh is not None:
                meshes.append(_NamedMesh(role, info, mesh))
    return meshes
