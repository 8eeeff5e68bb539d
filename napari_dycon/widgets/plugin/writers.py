"""File > Save of one 3D layer, with the geometry that other programs need.

The grid on which a layer is written:

- A layer that was opened from a file or created by the panel: the grid of its scan. If it was
  moved or cropped since, its position within that scan is kept.
- Any other layer over such a scan (a new labels layer, a result of another plugin): its
  position over that scan.
- Any other layer: its own scale and translate, in millimeters along Superior, Posterior and
  Left: data axis 0 runs to the head, 1 to the back, 2 to the left.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pint
from napari import current_viewer

from napari_dycon.core.types import Array
from napari_dycon.errors import FileFormatError, GeometryError, UserError
from napari_dycon.io import write_volume
from napari_dycon.io.volume import Source, Volume, to_canonical
from napari_dycon.io.writing import WRITABLE_SUFFIXES
from napari_dycon.widgets.dialogs.progress import find_main_window, run_with_dialog
from napari_dycon.widgets.layers.layer_stack import METADATA_KEY

Affine = npt.NDArray[np.float64]
# Millimeters along Superior, Posterior, Left to RAS+.
SPL_TO_RAS = np.array([[0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)
LABEL_DTYPES = (np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64)
TOLERANCE_MM = 1e-3


def write_image(path: str, data: Any, attributes: Mapping[str, Any]) -> list[str]:
    """Write an image layer ``(D, H, W)`` in its own data type; the module describes the grid.

    Raises
    ------
    UserError
        The layer is not 3D, is rotated or sheared, or the file cannot be written.
    """
    array = _require_3d(data, attributes)
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    elif array.dtype == bool:
        array = array.astype(np.uint8)
    elif array.dtype.kind not in "iuf":
        raise FileFormatError(
            f"{_layer_name(attributes)} holds {array.dtype} values; expected numbers."
        )
    return _write_layer(path, array, data, attributes)


def write_labels(path: str, data: Any, attributes: Mapping[str, Any]) -> list[str]:
    """Write a labels layer ``(D, H, W)`` as uint8, or wider where its values need it.

    Raises
    ------
    UserError
        As ``write_image``.
    """
    array = _require_3d(data, attributes)
    low, high = int(array.min(initial=0)), int(array.max(initial=0))
    for dtype in LABEL_DTYPES:
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return _write_layer(path, array.astype(dtype), data, attributes)
    raise FileFormatError(
        f"{_layer_name(attributes)} holds labels up to {high}; "
        "expected numbers that a file can hold."
    )


def _write_layer(path: str, array: Array, data: Any, attributes: Mapping[str, Any]) -> list[str]:
    target = _output_path(Path(path))
    reference = _find_grid(array.shape, data, attributes)
    window = find_main_window()
    run_with_dialog(
        f"Saving {target.name}",
        lambda _: write_volume(array, reference=reference, path=target),
        window,
        can_cancel=False,
    )
    return [str(target)]


def _output_path(path: Path) -> Path:
    """Path to write; a suffix is appended if missing, without replacing an existing file."""
    if path.name.lower().endswith(WRITABLE_SUFFIXES) or path.suffix:
        return path
    target = path.with_name(path.name + WRITABLE_SUFFIXES[0])
    if target.exists():
        raise UserError(
            f"{target.name} already exists. To replace it, save under its full name with "
            f"{WRITABLE_SUFFIXES[0]}; otherwise choose another name."
        )
    return target


def _require_3d(data: Any, attributes: Mapping[str, Any]) -> Array:
    name = _layer_name(attributes)
    if attributes.get("multiscale"):
        raise FileFormatError(
            f"{name} is multiscale; expected one 3D array. Save its full resolution as a separate "
            "layer."
        )
    if attributes.get("rgb"):
        raise FileFormatError(
            f"{name} is an RGB image; expected one value per voxel. Split its channels first "
            "(right-click the layer)."
        )
    if len(data.shape) != 3:
        raise FileFormatError(
            f"{name} is {len(data.shape)}D; expected a 3D layer. Save each 3D part as a separate "
            "layer."
        )
    return np.asarray(data)


def _find_grid(shape: tuple[int, ...], data: Any, attributes: Mapping[str, Any]) -> Volume:
    """Grid on which to write ``(D, H, W)`` voxels."""
    layer_affine = _compute_layer_affine(attributes)
    layer_source = attributes.get("metadata", {}).get(METADATA_KEY, {}).get("source")
    sources = {"": layer_source} if layer_source is not None else _find_reference_scans(data)
    grids = {name: _canonical_grid(source) for name, source in sources.items()}
    matching = {
        n: g for n, g in grids.items() if g.shape == shape and _matches_grid(g, layer_affine)
    }
    grids = matching or grids
    if not grids:
        return _create_grid(shape, SPL_TO_RAS @ layer_affine)
    (first_name, grid), *others = grids.items()
    for other_name, candidate in others:
        if not np.allclose(_window_to_world(grid), _window_to_world(candidate), atol=TOLERANCE_MM):
            raise GeometryError(
                f"{_layer_name(attributes)} overlaps {first_name} and {other_name}, which have "
                "different positions in space. Remove the scan it does not belong to, then save "
                "again."
            )
    return grid if matching else _create_grid(shape, _window_to_world(grid) @ layer_affine)


def _compute_layer_affine(attributes: Mapping[str, Any]) -> Affine:
    """Affine from voxels to window coordinates in mm: scale and translate only."""
    affine = np.asarray(attributes.get("affine", np.eye(4)), dtype=np.float64)
    scale = np.asarray(attributes.get("scale", np.ones(3)), dtype=np.float64)
    rotate = np.asarray(attributes.get("rotate", np.eye(3)), dtype=np.float64)
    shear = np.asarray(attributes.get("shear", np.zeros(3)), dtype=np.float64)
    if (
        not np.allclose(rotate, np.eye(3))
        or not np.allclose(shear, 0)
        or not np.allclose(affine[:3, :3], np.diag(np.diag(affine[:3, :3])))
        or np.any(scale * np.diag(affine)[:3] <= 0)
    ):
        raise GeometryError(
            f"{_layer_name(attributes)} is rotated, mirrored or sheared; expected scale and "
            "translate only. Reset its transform (rotate, shear, affine), then save."
        )
    scale_translate = np.diag([*scale, 1.0])
    scale_translate[:3, 3] = np.asarray(attributes.get("translate", np.zeros(3)), dtype=np.float64)
    return np.diag([*_unit_factors_mm(attributes), 1.0]) @ affine @ scale_translate


def _unit_factors_mm(attributes: Mapping[str, Any]) -> list[float]:
    """Millimeters of the layer's unit along each axis; pixels count as millimeters."""
    factors = []
    for unit in attributes.get("units") or ("pixel",) * 3:
        quantity = pint.application_registry.Quantity(1, unit)
        length = quantity.check("[length]")
        factors.append(float(quantity.to("millimeter").magnitude) if length else 1.0)
    return factors


def _find_reference_scans(data: Any) -> dict[str, Source]:
    """Grids of the scans in the window that shows this array, by layer name."""
    viewer = current_viewer()
    if viewer is None or not any(layer.data is data for layer in viewer.layers):
        return {}
    sources = {}
    for layer in viewer.layers:
        source = layer.metadata.get(METADATA_KEY, {}).get("source")
        if source is not None:
            sources[layer.name] = source
    return sources


def _canonical_grid(source: Source) -> Volume:
    """Grid of a file in canonical axes."""
    empty = np.broadcast_to(np.uint8(0), source.shape)
    return Volume(*to_canonical(empty, source.affine), source)


def _window_to_world(grid: Volume) -> Affine:
    """Affine from window coordinates in mm to world coordinates; voxel 0 is drawn at 0."""
    return grid.affine @ np.diag([*(1 / np.array(grid.spacing_mm)), 1.0])


def _matches_grid(grid: Volume, layer_affine: Affine) -> bool:
    """Whether a layer coincides with the grid of a scan in the window."""
    corner = np.array([*grid.shape, 1.0])
    grid_affine = np.diag([*grid.spacing_mm, 1.0])
    deviation_mm = (layer_affine - grid_affine) @ np.stack([corner, [0, 0, 0, 1]], axis=1)
    return bool(np.abs(deviation_mm).max() < TOLERANCE_MM)


def _create_grid(shape: tuple[int, ...], affine: Affine) -> Volume:
    """Grid from canonical index to RAS+ mm; the axes of its file are left, posterior, superior."""
    d, h, w = shape
    source = Source(None, (w, h, d), affine[:, [2, 1, 0, 3]])
    return _canonical_grid(source)


def _layer_name(attributes: Mapping[str, Any]) -> str:
    return str(attributes.get("name") or "The layer")
