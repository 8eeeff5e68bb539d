"""Splitting of DICOM series into volumes.

The images of a series may form several volumes. The frames of each file are parsed to slices;
slices of one size, direction and spacing are grouped (``get_grid_key``); and if several are at the
same position, they are split by the tags that differ: echo, time point, diffusion weighting
(``split_volumes``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_dycon.io.dicom.files import header_text, suppress_warnings
from napari_dycon.io.dicom.headers import FRAME_DIMENSIONS
from napari_dycon.io.dicom.pixels import get_functional_group, read_value_encodings
from napari_dycon.io.dicom.slice_geometry import MIN_SLICE_DISTANCE_MM, Slice

# Position of a slice: in the header of single-frame files, in these groups of multi-frame ones.
POSITION_TAGS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
}
MAX_IMAGE_PIXELS = 2**26  # of one image


def read_slices(path: Path, header: Any) -> list[Slice]:
    """Parse the images of a file that have a position in space."""
    try:
        with suppress_warnings():
            return list(_parse_frames(path, header))
    except Exception:  # noqa: BLE001 - pydicom parses elements lazily and raises any error
        return []


def get_grid_key(image: Slice) -> tuple[float, ...]:
    """Return size, directions and spacing, rounded; slices of one volume share them."""
    directions = np.concatenate([image.row_direction, image.column_direction])
    return (
        image.rows,
        image.columns,
        *np.round(directions, 3).tolist(),
        *np.round(image.pixel_mm, 3).tolist(),
    )


def split_volumes(slices: list[Slice]) -> Iterator[tuple[str, list[Slice]]]:
    """Split images at the same positions by the tags that differ between them.

    Yields
    ------
    a description, empty if there is only one volume, and the sorted slices of a volume
    """
    if not _positions_overlap(slices):
        yield "", slices
        return
    for index in range(max((len(s.dimension_values) for s in slices), default=0)):
        volumes: dict[str, list[Slice]] = defaultdict(list)
        for image in slices:
            volumes[
                image.dimension_values[index] if index < len(image.dimension_values) else ""
            ].append(image)
        if len(volumes) > 1 and not any(_positions_overlap(part) for part in volumes.values()):
            for number, (_, volume) in enumerate(sorted(volumes.items()), start=1):
                yield f"({number} of {len(volumes)})", volume
            return
    yield "", slices


def _parse_frames(path: Path, header: Any) -> Iterator[Slice]:
    rows, columns = int(header.Rows), int(header.Columns)
    if rows * columns > MAX_IMAGE_PIXELS:
        return
    frames = header.get("PerFrameFunctionalGroupsSequence")
    shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
    values = read_value_encodings(header)
    for number, groups in enumerate([(f, shared) for f in frames] if frames else [()]):
        position, directions, spacing = (
            np.array([float(v) for v in source.get(name)])
            for name, source in (
                (name, get_functional_group(groups, sequence) if frames else header)
                for name, sequence in POSITION_TAGS.items()
            )
        )
        row, column = directions[:3], directions[3:]
        lengths = np.linalg.norm(row), np.linalg.norm(column)
        if not (
            (len(position), len(directions), len(spacing)) == (3, 6, 2)
            and np.all(np.isfinite(np.concatenate([position, directions, spacing])))
            and np.all(spacing > 0)
            and np.allclose(lengths, 1, atol=1e-2)
            and abs(float(row @ column)) < 1e-2
        ):
            continue
        yield Slice(
            path,
            position,
            row / lengths[0],
            column / lengths[1],
            (float(spacing[1]), float(spacing[0])),
            columns,
            rows,
            number if frames else None,
            _dimension_indices(groups)
            if frames
            else tuple(header_text(header, name) for name in FRAME_DIMENSIONS),
            values[min(number, len(values) - 1)] if values else None,
        )


def _dimension_indices(groups: Sequence[Any]) -> tuple[str, ...]:
    """Return dimension values that distinguish a frame from others at its position."""
    content = groups[0].get("FrameContentSequence")
    if not content:
        return ()
    return (
        str(content[0].get("TemporalPositionIndex", "")),
        str(content[0].get("FrameAcquisitionNumber", "")),
    )


def _positions_overlap(slices: Sequence[Slice]) -> bool:
    return len(slices) > 1 and bool(
        np.any(np.diff([s.location_mm for s in slices]) < MIN_SLICE_DISTANCE_MM)
    )
