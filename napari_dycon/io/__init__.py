"""Reading and writing of scans and masks; only this package deals with the axes of files."""

from napari_dycon.io.reading import (
    get_scan_file,
    is_scan,
    read_label,
    read_map,
    read_series,
    read_volume,
    scan_fingerprint,
    scan_name,
)
from napari_dycon.io.volume import Volume
from napari_dycon.io.writing import write_map, write_mask, write_volume

__all__ = [
    "Volume",
    "get_scan_file",
    "is_scan",
    "read_label",
    "read_map",
    "read_series",
    "read_volume",
    "scan_fingerprint",
    "scan_name",
    "write_map",
    "write_mask",
    "write_volume",
]
