"""Thumbnails of scans for the list of cases, kept in the project's cache."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_dycon.core.atomic import ensure_dir, write_bytes
from napari_dycon.core.containment import ensure_within
from napari_dycon.errors import DyconError
from napari_dycon.io.volume import intensity_range
from napari_dycon.project.store import Project

Thumbnail = npt.NDArray[np.uint8]
THUMBNAIL_PIXELS = 48  # pixels of the longer side


def load_thumbnails(project: Project, cases: Sequence[str]) -> dict[str, Thumbnail]:
    """Read or draw the thumbnails of cases, by case id."""
    return {case: _load_thumbnail(project, case) for case in cases}


def _load_thumbnail(project: Project, case: str) -> Thumbnail:
    """Read a thumbnail from the project's cache, or draw and cache it."""
    path: Path = project.path / "cache" / "pictures" / f"{case}.npy"
    try:
        if not ensure_within(
            project.path, path
        ).is_file():  # a pipe would be waited for without end
            raise FileNotFoundError(path)
        cached = np.lib.format.open_memmap(path, mode="r")  # refuses objects and archives
        if (
            cached.dtype == np.uint8
            and cached.ndim == 2
            and 0 < max(cached.shape) <= THUMBNAIL_PIXELS
        ):
            return np.array(cached, dtype=np.uint8)
    except Exception:  # noqa: BLE001 - NumPy raises many types for a damaged header; redrawn
        pass
    thumbnail = draw_thumbnail(project, case)
    if project.read_only_reason:
        return thumbnail
    buffer = io.BytesIO()
    np.save(buffer, thumbnail, allow_pickle=False)
    with contextlib.suppress(DyconError):  # a read-only folder; drawn again the next time
        ensure_within(project.path, path)
        ensure_dir(path.parent, existing_root=project.path)
        write_bytes(path, buffer.getvalue())
    return thumbnail


def draw_thumbnail(project: Project, case: str) -> Thumbnail:
    """Draw the middle slice of a scan's first channel, in its true proportions; (H, W)."""
    try:
        volume = project.read_image(case)
    except DyconError:
        return np.zeros((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS), np.uint8)
    channel = volume.array if volume.array.ndim == 3 else volume.array[0]
    middle_slice = np.asarray(channel[len(channel) // 2], dtype=np.float32)
    low, high = intensity_range(middle_slice)
    size_mm = np.multiply(middle_slice.shape, volume.spacing_mm[1:])
    shape = np.maximum(np.round(size_mm / size_mm.max() * THUMBNAIL_PIXELS), 1)
    resized = ndimage.zoom(middle_slice, shape / middle_slice.shape, order=1)[
        :THUMBNAIL_PIXELS, :THUMBNAIL_PIXELS
    ].astype(np.float64)
    scaled = np.clip((resized - low) / max(high - low, 1e-6), 0, 1) * 255
    return np.asarray(scaled, dtype=np.uint8)
