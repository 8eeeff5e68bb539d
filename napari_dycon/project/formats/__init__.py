"""Scans and masks from files and back; the only place that knows a file's own axes."""

from napari_dycon.project.formats.nifti import (
    is_scan,
    read_label,
    read_map,
    read_volume,
    scan_name,
    write_map,
    write_mask,
)

__all__ = [
    "is_scan",
    "read_label",
    "read_map",
    "read_volume",
    "scan_name",
    "write_map",
    "write_mask",
]
