"""The sample data of the plugin: one synthetic scan with its true segmentation."""

from __future__ import annotations

from typing import Any

from napari_dycon.demo.synthetic import CLASSES, make_case
from napari_dycon.io.volume import intensity_range
from napari_dycon.widgets.layers.layer_stack import AXIS_LABELS
from napari_dycon.widgets.plugin.open_scans import LayerData


def sample_case() -> list[LayerData]:
    """Make a synthetic scan with its true segmentation: an organ and small lesions."""
    volume, truth = make_case(1)
    low, high = intensity_range(volume.array)
    metadata: dict[str, Any] = {
        "scale": volume.spacing_mm,
        "units": ("mm",) * 3,
        "axis_labels": AXIS_LABELS,
    }
    image = {"name": "synthetic scan", "contrast_limits": (low, high)}
    labels = {"name": f"truth ({', '.join(CLASSES)})"}
    return [
        (volume.array, image | metadata, "image"),
        (truth, labels | metadata, "labels"),
    ]
