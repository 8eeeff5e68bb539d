"""Moves the camera: to a region, as little as possible, and around the patient in 3D."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from napari.components import ViewerModel

from napari_dycon.io.volume import Volume

MIN_MOVE_MM = 1e-6
SOLID_FRACTION = 0.82  # of what napari fits into the 3D view
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

    napari uses one camera for both, mirrors the patient in 3D for half of the planes, and moves
    the slices to the center of the camera when 3D is left.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._saved: tuple[Any, ...] | None = None

    def enter(self) -> None:
        """Keep the camera of the slices, and show the patient without mirroring."""
        camera, order = self._viewer.scene.camera, tuple(self._viewer.dims.order)
        if self._saved is None:
            self._saved = order, camera.orientation, tuple(camera.center), camera.zoom
        camera.orientation = (AWAY if is_even(order) else TOWARDS, *ORIENTATION_2D)

    def fit(self) -> None:
        """Fit the scan into the 3D view, with room for the names of the axes at its corner."""
        self._viewer.fit_to_view()
        self._viewer.scene.camera.zoom *= SOLID_FRACTION

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
        self._saved = None
        if tuple(dims.order) == order:
            camera.orientation = orientation
        else:  # that of the slices belongs to another plane now
            camera.orientation = (orientation[0], *camera.orientation2d)
        # napari takes the slice from the first coordinate.
        camera.center = (dims.point[dims.order[0]], *center[-2:])
        camera.zoom = zoom


def is_even(order: Sequence[int]) -> bool:
    """Whether a permutation of axes keeps handedness."""
    swaps = sum(a > b for i, a in enumerate(order) for b in order[i + 1 :])
    return swaps % 2 == 0
