"""Records of labels that were imported from files: ``labels/imported/CASE.json``.

A checksum of the voxels tells whether a label is still as it was imported. Labels of earlier
versions have no record.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Literal

import numpy as np

from napari_dycon.core.atomic import ensure_dir, write_json
from napari_dycon.core.containment import ensure_links_within
from napari_dycon.core.types import Array
from napari_dycon.core.untrusted import parse_integer, read_json
from napari_dycon.errors import ProjectError

ImportState = Literal["unchanged", "changed"]
KEY = "checksum"


def get_import_record_path(folder: Path, case_id: str) -> Path:
    """Return the path of a case's record in a project's folder, without checking links."""
    return folder / "labels" / "imported" / f"{case_id}.json"


def record_import(folder: Path, case_id: str, label: Array) -> Path:
    """Record that a label was imported; returns the path of the record."""
    path = ensure_links_within(folder, get_import_record_path(folder, case_id))
    ensure_dir(path.parent, existing_root=folder)
    write_json(path, {KEY: _compute_checksum(label)})
    return path


def get_import_state(folder: Path, case_id: str, label: Array) -> ImportState | None:
    """Return whether an imported label was changed since; ``None`` if it was not imported."""
    checksum = _read_checksum(folder, case_id)
    if checksum is None:
        return None
    return "unchanged" if checksum == _compute_checksum(label) else "changed"


def was_imported(folder: Path, case_id: str) -> bool:
    """Check whether the label of a case was imported, changed since or not."""
    return _read_checksum(folder, case_id) is not None


def _read_checksum(folder: Path, case_id: str) -> int | None:
    try:
        path = ensure_links_within(folder, get_import_record_path(folder, case_id))
        values = read_json(path)
    except (OSError, ValueError, ProjectError):
        return None
    value = values.get(KEY) if isinstance(values, dict) else None
    return parse_integer(value, 0, 2**32 - 1)


def _compute_checksum(label: Array) -> int:
    return zlib.crc32(np.ascontiguousarray(label, np.uint8).data)
