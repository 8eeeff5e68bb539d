"""Moves the camera: to a region, as little as possible, and around the patient in 3D."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel

from napari_dycon.io.volume import Volume

MIN_MOVE_MM = 1e-6
SOLID_FRACTION = 0.95  # of the 3D view, which the sphere around the structures fills
MIN_DIAMETER_MM = 1.0
EDGE_FRACTION = 0.1  # of half the view; regions nearer to its edge count as outside
# Directions along the axes of a scan, which point to superior, posterior and left.
SUPERIOR = (1.0, 0.0, 0.0)
POSTERIOR = (0.0, 1.0, 0.0)
# Directions of napari's axes in 3D with which the patient is not mirrored.
ORIENTATION_2D = ("down", "right")
AWAY, TOWARDS = "away", "towards"


def pan_to_region(
    viewer: ViewerModel, position_mm: Sequence[float], radius_mm: float, image: Volume
) -> None:
    """Pan a two-dimensional view if a region is outside of it or near its edge.

    Parameters
    ----------
    position_mm : center of the region, (z, y, x)
    radius_mm : 0 for a single position
    image : the scan, beyond which the view does not reach
    """
    camera, axes = viewer.scene.camera, viewer.dims.displayed
    pixels = viewer.canvas.size  # height and width, as the displayed axes
    old = camera.center[-2:]
    new = tuple(
        choose_center(
            center,
            size / (2 * camera.zoom),
            (position_mm[axis] - radius_mm, position_mm[axis] + radius_mm),
            (
                -image.spacing_mm[axis] / 2,
                (image.shape[axis] - 0.5) * image.spacing_mm[axis],
            ),
        )
        for center, size, axis in zip(old, pixels, axes, strict=True)
    )
    # Rounding must not count as a move: a fitted view is fitted again after a resize.
    if any(abs(a - b) > MIN_MOVE_MM for a, b in zip(new, old, strict=True)):
        camera.center = (camera.center[0], *new)


def choose_center(
    center: float, half_view: float, region: tuple[float, float], scan: tuple[float, float]
) -> float:
    """Choose the center of the view along one axis; all values are positions in mm.

    It is unchanged if the region is visible. Otherwise the view is centered on the region, except
    that it does not extend beyond the scan, or as little as possible where the scan is smaller.
    """
    low, high = region
    reach = half_view * (1 - EDGE_FRACTION)
    if center - reach <= low and high <= center + reach:
        return center
    scan_low, scan_high = scan
    if scan_high - scan_low <= 2 * half_view:
        return (scan_low + scan_high) / 2
    return min(max((low + high) / 2, scan_low + half_view), scan_high - half_view)


class SolidCamera:
    """Camera of the 3D view; that of the slices is restored afterwards.

    napari uses one camera for both, mirrors the patient in 3D for half of the planes, moves the
    slices to the center of the camera when 3D is left, and fits the view from above.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._saved: tuple[Any, ...] | None = None
        self._box_mm = (np.zeros(3), np.ones(3))  # what is shown, from its lower to its upper end
        self._fitted: tuple[float, ...] | None = None  # zoom and center, until the user zooms
        self._viewer.canvas.events.size.connect(self._on_resized)
        self._viewer.events.reset_view.connect(self._on_reset)

    def close(self) -> None:
        """Restore the camera of the slices and release the viewer."""
        self._viewer.canvas.events.size.disconnect(self._on_resized)
        self._viewer.events.reset_view.disconnect(self._on_reset)
        self.restore()

    def enter(self) -> None:
        """Keep the camera of the slices, and show the patient without mirroring."""
        camera, order = self._viewer.scene.camera, tuple(self._viewer.dims.order)
        if self._saved is None:
            self._saved = order, camera.orientation, tuple(camera.center), camera.zoom
        camera.orientation = (AWAY if is_even(order) else TOWARDS, *ORIENTATION_2D)

    def show(self, low_mm: npt.ArrayLike, high_mm: npt.ArrayLike) -> None:
        """Fit a box into the view, unless the user has zoomed or panned.

        Parameters
        ----------
        low_mm, high_mm : corners of the box along the axes of the scan
        """
        was_fitted = self._is_fitted
        self._box_mm = np.asarray(low_mm, float), np.asarray(high_mm, float)
        if was_fitted:
            self.fit()

    def fit(self) -> None:
        """Fit the box into the view: the sphere around it, so that turning it cuts nothing off."""
        low, high = self._box_mm
        camera, order = self._viewer.scene.camera, self._viewer.dims.order
        diameter_mm = max(float(np.linalg.norm(high - low)), MIN_DIAMETER_MM)
        camera.center = tuple(float((low[axis] + high[axis]) / 2) for axis in order)
        camera.zoom = SOLID_FRACTION * min(self._viewer.canvas.size) / diameter_mm
        self._fitted = self._read_view()

    def look_from_front(self) -> None:
        """Show the patient from the front, superior up; the patient's left is on the right."""
        order = self._viewer.dims.order
        self._viewer.scene.camera.set_view_direction(
            view_direction=tuple(POSTERIOR[axis] for axis in order),
            up_direction=tuple(SUPERIOR[axis] for axis in order),
        )

    def restore(self) -> None:
        """Restore the camera of the slices."""
        if self._saved is None:
            return
        camera, dims = self._viewer.scene.camera, self._viewer.dims
        order, orientation, center, zoom = self._saved
        self._saved = self._fitted = None
        if tuple(dims.order) == order:
            camera.orientation = orientation
        else:  # that of the slices belongs to another plane now
            camera.orientation = (orientation[0], *camera.orientation2d)
        # napari takes the slice from the first coordinate.
        camera.center = (dims.point[dims.order[0]], *center[-2:])
        camera.zoom = zoom

    def _read_view(self) -> tuple[float, ...]:
        camera = self._viewer.scene.camera
        return float(camera.zoom), *(float(value) for value in camera.center)

    @property
    def _is_fitted(self) -> bool:
        """Whether the view is as ``fit`` left it."""
        return self._fitted is not None and np.allclose(self._read_view(), self._fitted, rtol=1e-4)

    @property
    def _is_shown(self) -> bool:
        return self._saved is not None and int(self._viewer.dims.ndisplay) == 3

    def _on_resized(self, _: object) -> None:
        """Fit the view again after a change of size; the zoom of the user is kept."""
        if self._is_shown and self._is_fitted:
            self.fit()

    def _on_reset(self, _: object) -> None:
        """Fit the view from the front when napari fits it from above."""
        if self._is_shown:
            self.look_from_front()
            self.fit()


def is_even(order: Sequence[int]) -> bool:
    """Whether a permutation of axes keeps handedness."""
    swaps = sum(a > b for i, a in enumerate(order) for b in order[i + 1 :])
    return swaps % 2 == 0
