"""Text on what is under the mouse: slice, intensity and structure."""

from __future__ import annotations

from collections.abc import Sequence

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.core.types import UNANNOTATED
from napari_dycon.project.models import ClassInfo

BACKGROUND_TEXT, UNANNOTATED_TEXT = "background", "not annotated"


def describe_voxel(
    case: ActiveCase,
    axis: int,
    voxel: tuple[int, int, int],
    classes: Sequence[ClassInfo],
    channel: tuple[int, str],
) -> str:
    """Describe a voxel: "slice 45 · LGE 63 · left atrium".

    Parameters
    ----------
    axis : axis along which slices are counted, from 1
    voxel : canonical indices (d, h, w)
    channel : index and name of the channel that is shown

    Returns
    -------
    The text, empty outside of the scan. Where label and prediction differ, both are named.
    """
    if not all(0 <= v < n for v, n in zip(voxel, case.image.shape, strict=True)):
        return ""
    index, name = channel
    unit = " HU" if case.is_ct else ""
    intensity = float(case.get_channel(index)[voxel])
    label = int(case.label[voxel])
    parts = [
        f"slice {voxel[axis] + 1}",
        f"{name} {intensity:.5g}{unit}",
        describe_value(label, classes),
    ]
    if case.prediction is not None and int(case.prediction[voxel]) != label:
        source = "preview" if case.is_preview else "predicted"
        parts.append(f"{source}: {describe_value(int(case.prediction[voxel]), classes)}")
    return " · ".join(parts)


def describe_value(value: int, classes: Sequence[ClassInfo]) -> str:
    """Return the name of the structure that a label value stands for."""
    if value == UNANNOTATED:
        return UNANNOTATED_TEXT
    if value == 0:
        return BACKGROUND_TEXT
    return next((info.name for info in classes if info.value == value), f"value {value}")
