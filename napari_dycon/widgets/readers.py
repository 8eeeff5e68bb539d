"""What the manifest contributes besides the panel: a NIfTI reader and a synthetic scan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from napari_dycon.project.formats import is_scan, read_volume, scan_name
from napari_dycon.widgets.layers import AXIS_LABELS

LayerData = tuple[Any, dict[str, Any], str]


def get_reader(
    path: str | Sequence[str],
) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """Return the reader for NIfTI files; ``None`` for anything else."""
    paths = [path] if isinstance(path, str) else list(path)
    return read_scans if all(is_scan(p) for p in paths) else None


def read_scans(path: str | Sequence[str]) -> list[LayerData]:
    """Read scans as image layers in canonical orientation, in millimetres."""
    layers = []
    for item in [path] if isinstance(path, str) else path:
        volume = read_volume(item)
        layers.append((volume.array, _placed(scan_name(item), volume.spacing_mm), "image"))
    return layers


def sample_case() -> list[LayerData]:
    """One synthetic scan with its truth: an organ and small lesions."""
    from napari_dycon.cohort import CLASSES, make_case

    volume, truth = make_case(1)
    low, high = (float(v) for v in np.quantile(volume.array, (0.005, 0.995)))
    return [
        (
            volume.array,
            _placed("synthetic scan", volume.spacing_mm) | {"contrast_limits": (low, high)},
            "image",
        ),
        (truth, _placed(f"truth ({', '.join(CLASSES)})", volume.spacing_mm), "labels"),
    ]


def _placed(name: str, spacing: tuple[float, float, float]) -> dict[str, Any]:
    return {
        "name": name,
        "scale": spacing,
        "units": ("mm",) * 3,
        "axis_labels": AXIS_LABELS,
    }
