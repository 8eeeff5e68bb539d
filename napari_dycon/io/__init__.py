"""Scans and masks from files and back; the only place that knows a file's own axes."""

from napari_dycon.io.reading import (
    file_of,
    is_scan,
    read_label,
    read_map,
    read_series,
    read_volume,
    scan_name,
    scan_state,
)
from napari_dycon.io.writing import write_map, write_mask, write_volume

__all__ = [
    "file_of",
    "is_scan",
    "read_label",
    "read_map",
    "read_series",
    "read_volume",
    "scan_name",
    "scan_state",
    "write_map",
    "write_mask",
    "write_volume",
]
