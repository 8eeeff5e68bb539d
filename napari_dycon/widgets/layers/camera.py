"""Moves the camera to a region, as little as possible."""

from __future__ import annotations

from collections.abc import Sequence

from napari.components import ViewerModel

from napari_dycon.io.volume import Volume

MIN_MOVE_MM = 1e-6
EDGE_FRACTION = 0.1  # of half the view; regions nearer to its edge count as outside


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
