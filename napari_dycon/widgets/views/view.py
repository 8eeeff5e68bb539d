"""One view of the active case: a napari canvas with its annotations, showing one plane."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
from napari.components import ViewerModel
from napari.qt import QtViewer
from qtpy.QtCore import QObject, QTimer
from qtpy.QtWidgets import QWidget

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.predictions.source_text import describe_stage
from napari_dycon.core.text import escape_control_characters
from napari_dycon.core.types import Box
from napari_dycon.widgets.layers.camera import pan_to_region
from napari_dycon.widgets.layers.napari_internals import get_canvas_widget, omit_brush_box
from napari_dycon.widgets.views.annotations import AnnotationContent, CanvasAnnotations
from napari_dycon.widgets.views.planes import (
    EdgeLetters,
    Plane,
    compute_edge_letters,
    name_edges,
)

Position = tuple[float, float, float]  # in mm along the canonical axes
RESIZE_MS = 60
MIN_MOVE_MM = 1e-6
SOLID_TITLE = "3D"
FIT_FRACTION = 0.95  # of a view, which a fitted scan fills


@dataclass(frozen=True)
class PlaneGeometry:
    """Geometry of a two-dimensional view: millimeters of a slice to pixels of its canvas.

    ``center_mm`` and ``size_px`` are (vertical, horizontal); ``zoom`` is pixels per millimeter.
    """

    center_mm: tuple[float, float]
    size_px: tuple[float, float]
    zoom: float
    is_upward: bool  # whether the vertical axis points up

    def to_pixel(self, vertical_mm: float, horizontal_mm: float) -> tuple[float, float]:
        """Map a position to ``(x, y)`` in pixels from the top left corner."""
        sign = -1.0 if self.is_upward else 1.0
        x = self.size_px[1] / 2 + (horizontal_mm - self.center_mm[1]) * self.zoom
        y = self.size_px[0] / 2 + sign * (vertical_mm - self.center_mm[0]) * self.zoom
        return x, y

    def to_mm(self, x: float, y: float) -> tuple[float, float]:
        """Map a pixel to ``(vertical, horizontal)`` in millimeters."""
        sign = -1.0 if self.is_upward else 1.0
        vertical = self.center_mm[0] + sign * (y - self.size_px[0] / 2) / self.zoom
        horizontal = self.center_mm[1] + (x - self.size_px[1] / 2) / self.zoom
        return vertical, horizontal


class View(QObject):
    """A canvas that shows one plane, with letters, crosshair and texts over it."""

    def __init__(self, model: ViewerModel, qt_viewer: QtViewer, plane: Plane) -> None:
        super().__init__(qt_viewer)
        self.model = model
        # napari expects that nothing keeps its widgets once their window is closed.
        self._qt_viewer = weakref.ref(qt_viewer)
        self.canvas: QWidget = get_canvas_widget(qt_viewer)
        omit_brush_box(model)
        self.annotations = CanvasAnnotations(self.canvas)
        self.plane = plane
        self.readout = ""
        self.window_text = ""
        self.is_active = False
        self.shows_crosshair = True
        self.region: Box | None = None  # of interest, in voxels
        self._case: ActiveCase | None = None
        self.position: Position = (0.0, 0.0, 0.0)
        # Camera and position often change together.
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._draw_annotations)
        self._fitted: tuple[float, ...] | None = None  # camera and size, until the user zooms
        self._fit_timer = QTimer(self)  # a window that is resized changes the size many times
        self._fit_timer.setSingleShot(True)
        self._fit_timer.setInterval(RESIZE_MS)
        self._fit_timer.timeout.connect(self.fit)
        camera = model.scene.camera
        self._connections = tuple(
            (emitter, self.update_annotations)
            for emitter in (
                camera.events.center,
                camera.events.zoom,
                camera.events.angles,
                camera.events.orientation,
                model.dims.events.ndisplay,
                model.canvas.events.size,
            )
        )
        for emitter, handler in self._connections:
            emitter.connect(handler)

    def close(self) -> None:
        """Disconnect from the canvas and remove the annotations."""
        self._timer.stop()
        self._fit_timer.stop()
        for emitter, handler in self._connections:
            emitter.disconnect(handler)
        self.canvas.removeEventFilter(self.annotations)
        self.annotations.hide()
        self.annotations.setParent(None)
        self.annotations.deleteLater()

    @property
    def qt_viewer(self) -> QtViewer:
        """Widget of the canvas, of napari."""
        qt_viewer = self._qt_viewer()
        assert qt_viewer is not None  # views are closed before their window
        return qt_viewer

    @property
    def geometry(self) -> PlaneGeometry:
        """Current geometry of the view."""
        camera = self.model.scene.camera
        return PlaneGeometry(
            center_mm=(float(camera.center[-2]), float(camera.center[-1])),
            size_px=(self.canvas.height(), self.canvas.width()),
            zoom=float(camera.zoom),
            is_upward=self.plane.vertical_orientation == "up",
        )

    @property
    def is_flat(self) -> bool:
        """Whether the view shows a slice, and not the 3D view."""
        return int(self.model.dims.ndisplay) == 2

    def show_plane(self, plane: Plane) -> None:
        """Show slices of a plane in radiological orientation."""
        self.plane = plane
        if tuple(self.model.dims.order) != plane.order:
            self.model.dims.order = plane.order
        orientation = (plane.vertical_orientation, "right")
        if self.is_flat and self.model.scene.camera.orientation2d != orientation:
            self.model.scene.camera.orientation2d = orientation
        self.update_annotations()

    def show_case(self, case: ActiveCase | None) -> None:
        """Set the case that the annotations describe."""
        self._case = case
        self.update_annotations()

    def show_position(self, position: Position, *, pan: bool) -> None:
        """Draw the crosshair at a position; with ``pan``, bring it into view.

        The view moves only if the position is outside of it or near its edge, and never further
        than the scan reaches.
        """
        self.position = position
        case = self._case
        if pan and case is not None and self.is_flat:
            pan_to_region(self.model, position, 0.0, case.image)
        self.update_annotations()

    @property
    def displayed_position(self) -> Position:
        """The position in the slice that is drawn, which may follow the crosshair later."""
        axis, dims = self.plane.value, self.model.dims
        shown = list(self.position)
        if dims.ndim == len(shown):
            shown[axis] = float(dims.point[axis])
        return shown[0], shown[1], shown[2]

    def to_position(self, x: float, y: float) -> Position:
        """Convert a pixel of the canvas to a position in the slice that is shown."""
        vertical_axis, horizontal_axis = self.plane.displayed_axes
        position = list(self.displayed_position)
        position[vertical_axis], position[horizontal_axis] = self.geometry.to_mm(x, y)
        return position[0], position[1], position[2]

    def zoom_by(self, factor: float, x: float, y: float) -> None:
        """Zoom while the position under a pixel stays where it is."""
        before = self.geometry
        vertical, horizontal = before.to_mm(x, y)
        camera = self.model.scene.camera
        center = (
            vertical + (before.center_mm[0] - vertical) / factor,
            horizontal + (before.center_mm[1] - horizontal) / factor,
        )
        camera.zoom = before.zoom * factor
        camera.center = (0.0, *center)

    def fit(self) -> None:
        """Fit the scan into the view."""
        self.model.reset_view()
        self.fit_scan()

    def fit_scan(self) -> None:
        """Fit the scan alone: layers that are hidden may still have the size of another case."""
        if not self.is_flat:
            return  # the 3D view is fitted on its own
        case, size_px = self._case, self.geometry.size_px
        if case is not None and min(size_px) > 0:
            axes = self.plane.displayed_axes
            shape, spacing_mm = case.image.shape, case.image.spacing_mm
            camera = self.model.scene.camera
            camera.zoom = FIT_FRACTION * min(
                pixels / (shape[axis] * spacing_mm[axis])
                for pixels, axis in zip(size_px, axes, strict=True)
            )
            vertical, horizontal = ((shape[axis] - 1) * spacing_mm[axis] / 2 for axis in axes)
            camera.center = (0.0, vertical, horizontal)
        self._fitted = (*self._read_size(), *self._read_camera())

    def _read_size(self) -> tuple[float, float]:
        return float(self.canvas.width()), float(self.canvas.height())

    def _read_camera(self) -> tuple[float, ...]:
        camera = self.model.scene.camera
        return float(camera.zoom), float(camera.center[-2]), float(camera.center[-1])

    def _keep_fitted(self) -> None:
        """Fit the scan again when the canvas has another size, until the user zooms or pans.

        The size also changes while the 3D view is open. After a change, napari may have adapted
        the camera to the new size already, so that only the size tells what happened.
        """
        if self._fitted is None or not self.is_flat:
            return
        if self._fitted[:2] != self._read_size():
            if not self._fit_timer.isActive():
                self._fit_timer.start()
        elif not np.allclose(self._fitted[2:], self._read_camera(), rtol=1e-6):
            self._fitted = None

    def update_annotations(self, *_: object) -> None:
        """Draw the annotations again in the next iteration of the event loop."""
        self._timer.start()

    def _draw_annotations(self) -> None:
        self._keep_fitted()
        case = self._case
        if case is None:
            self.annotations.show_content(AnnotationContent())
            return
        name = escape_control_characters(case.display_name)
        if not self.is_flat:
            self.annotations.show_content(
                AnnotationContent(
                    name=name,
                    title=SOLID_TITLE,
                    short_title=SOLID_TITLE,
                    letters=self._name_directions(case),
                )
            )
            return
        geometry, shown = self.geometry, self.displayed_position
        vertical, horizontal = self.plane.displayed_axes
        crosshair = None
        if self.shows_crosshair:
            crosshair = geometry.to_pixel(self.position[vertical], self.position[horizontal])
        self.annotations.show_content(
            AnnotationContent(
                name=name,
                title=describe_slice(case, self.plane, shown),
                short_title=describe_slice(case, self.plane, shown, is_short=True),
                note=describe_stage(case),
                readout=self.readout,
                window=self.window_text,
                letters=compute_edge_letters(case.image.affine, self.plane),
                crosshair=crosshair,
                region=self._locate_region(case),
                zoom=geometry.zoom,
                is_active=self.is_active,
            )
        )

    def _name_directions(self, case: ActiveCase) -> EdgeLetters:
        """Name the directions of the patient at the edges of the 3D view."""
        camera, order = self.model.scene.camera, self.model.dims.order
        view, up = np.zeros(3), np.zeros(3)  # along the axes of the scan
        view[list(order)], up[list(order)] = camera.view_direction, camera.up_direction
        rotation = case.image.affine[:3, :3] / np.array(case.image.spacing_mm)
        forward, upward = rotation @ view, rotation @ up
        return name_edges(np.cross(forward, upward), upward)

    def _locate_region(self, case: ActiveCase) -> tuple[float, float, float, float] | None:
        """Borders of the region of interest in pixels, where the slice goes through it."""
        region, axis = self.region, self.plane.value
        if region is None:
            return None
        if not region[axis].start <= to_voxel(case, self.position)[axis] < region[axis].stop:
            return None
        first, last = (
            self.geometry.to_pixel(*corner)
            for corner in zip(
                *(
                    ((region[a].start - 0.5) * spacing, (region[a].stop - 0.5) * spacing)
                    for a, spacing in enumerate(case.image.spacing_mm)
                    if a != axis
                ),
                strict=True,
            )
        )
        return (*first, *last)


def to_voxel(case: ActiveCase, position: Position) -> tuple[int, int, int]:
    """Return the voxel nearest to a position; it may lie outside of the scan."""
    z, y, x = (
        round(p / spacing) for p, spacing in zip(position, case.image.spacing_mm, strict=True)
    )
    return z, y, x


def describe_slice(
    case: ActiveCase, plane: Plane, position: Position, *, is_short: bool = False
) -> str:
    """Describe a slice: "axial · slice 45 of 88 · 0.625 mm" or, in short, "axial · 45 of 88".

    Slices count from 1.
    """
    axis = plane.value
    index = min(max(to_voxel(case, position)[axis], 0), case.image.shape[axis] - 1)
    number = f"{index + 1} of {case.image.shape[axis]}"
    if is_short:
        return f"{plane.title} · {number}"
    return f"{plane.title} · slice {number} · {case.image.spacing_mm[axis]:.3g} mm"
