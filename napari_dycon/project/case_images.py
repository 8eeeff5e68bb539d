"""Image files of a project's cases, and reading them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from napari_dycon import io
from napari_dycon.io.volume import Volume
from napari_dycon.project.external_images import reject_network_path
from napari_dycon.project.importing.discovery import read_scan
from napari_dycon.project.models import Case


def channel_paths(folder: Path, images: Sequence[str]) -> list[Path]:
    """Return the paths of a case's channels as listed in ``project.json`` in ``folder``."""
    return [Path(os.path.normpath(folder / image)) for image in images]


def image_paths(folder: Path, case: Case) -> list[Path]:
    """Return the files of a case, one per channel; a 4D file is repeated for each channel."""
    return [io.get_scan_file(path) for path in _safe_channel_paths(folder, case)]


def read_image(folder: Path, case: Case) -> Volume:
    """Read a scan: ``(D, H, W)``, or ``(C, D, H, W)`` if there are several channels."""
    return read_scan(_safe_channel_paths(folder, case), case.id, resample=case.resampled)


def read_grid(folder: Path, case: Case) -> Volume:
    """Read the first channel of a case, whose grid is that of its label."""
    return io.read_volume(
        _safe_channel_paths(folder, case)[0], check_values=False, resample=case.resampled
    )


def _safe_channel_paths(folder: Path, case: Case) -> list[Path]:
    for image in case.images:
        reject_network_path(image, folder)
    return channel_paths(folder, case.images)
