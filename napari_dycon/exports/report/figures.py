"""Three orthogonal slices of a case as a self-contained SVG image.

Intensities and uncertainty are embedded PNGs at voxel resolution; outlines are vector paths, sharp
at any size and in print. SVG units are millimeters, so all three views have the same scale.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from skimage.measure import approximate_polygon, find_contours
from skimage.transform import resize

from napari_dycon.core.boxes import bounding_box
from napari_dycon.core.colormaps import (
    DEFAULT_THRESHOLD,
    apply_colormap,
    choose_color_range,
    find_tint_threshold,
)
from napari_dycon.core.types import UNANNOTATED, Array, Box
from napari_dycon.engine.inference.map_artifacts import clean_map
from napari_dycon.exports.report.statistics import CaseData
from napari_dycon.io.volume import intensity_range
from napari_dycon.project.models import ClassInfo

MAX_PIXELS = 200  # per side of a view; finer voxels are averaged
# Fewer levels make smaller files without a visible difference.
GRAY_LEVELS, UNCERTAINTY_LEVELS = 64, 32
MARGIN_FRACTION, MIN_MARGIN_MM = 0.35, 8.0  # around the structures; fraction of longest side
BACKGROUND_DIM = 0.82  # brightest gray, so that white outlines are visible
PREDICTION_COLOR = "#ffffff"
UNCERTAINTY_OPACITY = 0.75  # the scan stays visible in uncertain regions
OUTLINE_TOLERANCE_VOXELS = 0.2  # tolerance of the outline simplification
SCALE_BARS_MM = (1, 2, 5, 10, 20, 50, 100, 200)


@dataclass(frozen=True)
class View:
    """A slice orientation of a canonical volume; ``side_letters``: left, right, top, bottom."""

    name: str
    axis: int
    side_letters: tuple[str, str, str, str]

    def extract_slice(self, array: Array, position: Sequence[int], box: Box) -> Array:
        """Extract the slice ``(rows, columns)`` within the box, superior or anterior side up."""
        index: list[Any] = list(box)
        index[self.axis] = position[self.axis]
        plane = np.asarray(array[tuple(index)])
        return plane if self.axis == 0 else plane[::-1]

    def select_in_plane(self, values: Sequence[float]) -> tuple[float, float]:
        """Select from values of the axes D, H, W those of the columns and the rows."""
        rows, columns = (v for i, v in enumerate(values) if i != self.axis)
        return columns, rows


VIEWS = (
    View("axial", 0, ("R", "L", "A", "P")),
    View("coronal", 1, ("R", "L", "S", "I")),
    View("sagittal", 2, ("A", "P", "S", "I")),
)


@dataclass(frozen=True)
class Picture:
    """Slices of a case: an ``svg`` element, and the uncertainty above which they are tinted."""

    svg: str
    threshold: float | None = None


def draw_case(data: CaseData, classes: Sequence[ClassInfo], figure_id: str) -> Picture:
    """Draw slices with outlines and, in a second row, with the uncertainty.

    The uncertainty is drawn as in the window: without artifacts of the network, and only where it
    is notable.

    Parameters
    ----------
    data : data of a case; the scan is required
    classes : classes of the project
    figure_id : id prefix of the image elements, unique within the page

    Raises
    ------
    ValueError
        The case has no scan.
    """
    if data.scan is None:
        raise ValueError("There is no scan to draw.")
    scan = data.scan.array if data.scan.array.ndim == 3 else data.scan.array[0]
    spacing = data.scan.spacing_mm
    structures = _find_structures(data, scan.shape)
    position = _choose_slices(structures)
    box = _find_crop_box(structures, data.prediction, spacing)
    low, high = _display_range(scan[box])
    extent_mm = [
        (extent_slice.stop - extent_slice.start) * mm
        for extent_slice, mm in zip(box, spacing, strict=True)
    ]
    sizes = [view.select_in_plane(extent_mm) for view in VIEWS]
    gap = 0.02 * sum(width for width, _ in sizes)
    total = sum(width for width, _ in sizes) + 2 * gap
    height = max(rows for _, rows in sizes)
    unit = total / 700  # about a pixel of the page
    length_mm = _choose_scale_bar(min(width for width, _ in sizes))
    uncertainty, color_range = _prepare_uncertainty(data)
    parts = []
    x = 0.0
    for number, (view, size) in enumerate(zip(VIEWS, sizes, strict=True)):
        mm = view.select_in_plane(spacing)
        y = (height - size[1]) / 2
        image_id = f"{figure_id}-{number}"
        gray_png = _encode_gray(view.extract_slice(scan, position, box), low, high)
        body = [_svg_image(gray_png, size, f' id="{image_id}"')]
        body += _draw_outlines(data, classes, view, position, box, mm, unit)
        body.append(_draw_side_letters(view, size, unit))
        body.append(_draw_scale_bar(length_mm, size, unit))
        parts.append(_svg_group(x, y, body))
        if uncertainty is not None and color_range is not None:
            uncertainty_png = _encode_uncertainty(
                view.extract_slice(uncertainty, position, box), *color_range
            )
            parts.append(
                _svg_group(
                    x,
                    height + gap + y,
                    [
                        f'<use href="#{image_id}"/>',
                        _svg_image(uncertainty_png, size, f' opacity="{UNCERTAINTY_OPACITY}"'),
                    ],
                )
            )
        x += size[0] + gap
    full_height = height if uncertainty is None else 2 * height + gap
    description = html.escape(f"Slices through case {data.case.id}", quote=True)
    svg = (
        f'<svg role="img" aria-label="{description}" viewBox="0 0 {total:.2f} {full_height:.2f}" '
        f'font-size="{11 * unit:.2f}">{"".join(parts)}</svg>'
    )
    return Picture(svg, None if color_range is None else color_range[0])


def _find_structures(data: CaseData, shape: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Return the mask of labeled structures or, without a label, of predicted structures."""
    label = data.label
    if label is not None:
        mask: npt.NDArray[np.bool_] = (label != 0) & (label != UNANNOTATED)
        if mask.any():
            return mask
    if data.prediction is not None:
        return np.asarray(data.prediction != 0, np.bool_)
    return np.zeros(tuple(shape), np.bool_)


def _choose_slices(structures: npt.NDArray[np.bool_]) -> list[int]:
    """Choose for each axis the slice with the largest area; of equal slices, the middle one."""
    position = []
    for axis in range(3):
        area = structures.sum(axis=tuple(i for i in range(3) if i != axis))
        largest = np.flatnonzero(area == area.max())
        position.append(int(largest[len(largest) // 2]))
    return position


def _find_crop_box(
    structures: npt.NDArray[np.bool_], prediction: Array | None, spacing: Sequence[float]
) -> Box:
    """Find the box of structures and prediction with a margin; without any, the whole scan."""
    is_shown = structures if prediction is None else structures | (prediction != 0)
    box = bounding_box(is_shown)
    if box is None:
        return tuple(slice(0, n) for n in is_shown.shape)
    longest = max((s.stop - s.start) * mm for s, mm in zip(box, spacing, strict=True))
    margin_mm = max(MARGIN_FRACTION * longest, MIN_MARGIN_MM)
    return bounding_box(is_shown, [round(margin_mm / mm) for mm in spacing]) or box


def _display_range(voxels: Array) -> tuple[float, float]:
    stride = max(1, round((voxels.size / 1e6) ** (1 / 3)))
    sample = voxels[::stride, ::stride, ::stride].astype(np.float32)
    low, high = intensity_range(sample)
    return low, max(high, low + 1e-6)


def _encode_gray(plane: Array, low: float, high: float) -> bytes:
    scaled = np.clip((_downsample(plane) - low) / (high - low), 0.0, 1.0)
    levels = np.rint(scaled * (GRAY_LEVELS - 1)) * (255 * BACKGROUND_DIM / (GRAY_LEVELS - 1))
    return _encode_png(Image.fromarray(np.asarray(np.rint(levels), np.uint8)))


def _prepare_uncertainty(
    data: CaseData,
) -> tuple[npt.NDArray[np.float32] | None, tuple[float, float] | None]:
    """Return the uncertainty as the window shows it, and the range of its colors."""
    if data.uncertainty is None or data.scan is None:
        return None, None
    uncertainty = clean_map(data.uncertainty, data.scan.array, data.map_period)
    return uncertainty, choose_color_range(DEFAULT_THRESHOLD, find_tint_threshold(uncertainty))


def _encode_uncertainty(plane: Array, low: float, high: float) -> bytes:
    scaled = np.clip((_downsample(plane) - low) / (high - low), 0.0, 1.0)
    levels = np.rint(scaled * (UNCERTAINTY_LEVELS - 1))
    image = Image.fromarray(np.asarray(levels, np.uint8))
    palette = apply_colormap(np.linspace(0.0, 1.0, UNCERTAINTY_LEVELS))
    image.putpalette(palette.tobytes(), "RGBA")
    return _encode_png(image)


def _downsample(plane: Array) -> npt.NDArray[np.float32]:
    """Downsample a slice to at most ``MAX_PIXELS`` per side; its size in mm does not change."""
    plane = np.asarray(plane, np.float32)
    shape = tuple(min(n, MAX_PIXELS) for n in plane.shape)
    if shape == plane.shape:
        return plane
    resized = resize(plane, shape, order=1, anti_aliasing=True, preserve_range=True)
    return np.asarray(resized, np.float32)


def _encode_png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG", optimize=True)
    return data.getvalue()


def _svg_image(png: bytes, size: tuple[float, float], attributes: str = "") -> str:
    text = base64.b64encode(png).decode("ascii")
    return (
        f'<image{attributes} width="{size[0]:.2f}" height="{size[1]:.2f}" '
        f'preserveAspectRatio="none" href="data:image/png;base64,{text}"/>'
    )


def _svg_group(x: float, y: float, body: Sequence[str]) -> str:
    return f'<g transform="translate({x:.2f} {y:.2f})">{"".join(body)}</g>'


def _draw_outlines(
    data: CaseData,
    classes: Sequence[ClassInfo],
    view: View,
    position: Sequence[int],
    box: Box,
    mm: tuple[float, float],
    unit: float,
) -> Iterator[str]:
    """Draw the prediction, filled and dashed, and above it the solid outline of the label."""
    dashes = f'stroke-dasharray="{4 * unit:.2f} {2.5 * unit:.2f}"'
    if data.prediction is not None:
        plane = view.extract_slice(data.prediction, position, box)
        for info in classes:
            if path := _trace_outline(plane == info.value, mm):
                yield (
                    f'<path d="{path}" fill="{info.color}" fill-opacity="0.2" '
                    f'fill-rule="evenodd" stroke="{PREDICTION_COLOR}" '
                    f'stroke-width="{1.5 * unit:.3f}" {dashes}/>'
                )
    if data.label is not None:
        plane = view.extract_slice(data.label, position, box)
        for info in classes:
            if path := _trace_outline(plane == info.value, mm):
                yield (
                    f'<path d="{path}" fill="none" stroke="{info.color}" '
                    f'stroke-width="{2 * unit:.3f}" stroke-linejoin="round"/>'
                )


def _trace_outline(mask: npt.NDArray[np.bool_], mm: tuple[float, float]) -> str:
    """Trace the outline of a mask ``(rows, columns)`` in mm, halfway between neighboring voxels."""
    if not mask.any():
        return ""
    parts = []
    for contour in find_contours(np.pad(mask, 1).astype(np.float32), 0.5):
        # Padding shifts indices by one voxel; a voxel's center is half a voxel from its edge.
        rows, columns = (approximate_polygon(contour, OUTLINE_TOLERANCE_VOXELS) - 0.5).T
        points = [f"{x:.2f} {y:.2f}" for x, y in zip(columns * mm[0], rows * mm[1], strict=True)]
        parts.append("M" + "L".join(points[:-1]) + "Z")
    return "".join(parts)


def _draw_side_letters(view: View, size: tuple[float, float], unit: float) -> str:
    width, height = size
    left, right, top, bottom = view.side_letters
    pad, line_height = 4 * unit, 11 * unit
    anchors = (
        (pad, height / 2 + line_height / 3, "start", left),
        (width - pad, height / 2 + line_height / 3, "end", right),
        (width / 2, line_height, "middle", top),
        (width / 2, height - pad, "middle", bottom),
    )
    return "".join(
        f'<text x="{x:.2f}" y="{y:.2f}" text-anchor="{anchor}" fill="#ffffff">{text}</text>'
        for x, y, anchor, text in anchors
    )


def _choose_scale_bar(width_mm: float) -> int:
    """Return the length of the scale bars of views of which the narrowest has this width."""
    return max((mm for mm in SCALE_BARS_MM if mm <= width_mm / 3), default=SCALE_BARS_MM[0])


def _draw_scale_bar(length_mm: int, size: tuple[float, float], unit: float) -> str:
    """Draw a scale bar with its length in mm."""
    x, y = 5 * unit, size[1] - 6 * unit
    return (
        f'<path d="M{x:.2f} {y:.2f}h{length_mm}" stroke="#ffffff" stroke-width="{2 * unit:.3f}"/>'
        f'<text x="{x:.2f}" y="{y - 4 * unit:.2f}" fill="#ffffff">{length_mm} mm</text>'
    )
