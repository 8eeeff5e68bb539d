"""Records of deleted structures, whose values old predictions and weights still contain."""

from __future__ import annotations

import os
from pathlib import Path

from napari_dycon.core.containment import ensure_links_within
from napari_dycon.core.types import UNANNOTATED
from napari_dycon.core.untrusted import parse_integer, read_json
from napari_dycon.errors import DyconError

FOLDER = Path("removed", "structures")
RECORD_FILE = "structure.json"
MAX_RECORDS = 10_000


def read_deleted_values(folder: Path) -> set[int]:
    """Return the values of structures that were deleted from the project in ``folder``."""
    values = set()
    try:
        parent = ensure_links_within(folder, folder / FOLDER)
        names = sorted(os.listdir(parent))[:MAX_RECORDS]
    except (OSError, DyconError):
        return set()
    for name in names:
        try:
            path = ensure_links_within(folder, parent / name / RECORD_FILE)
            value = parse_integer(read_json(path)["structure"]["value"], 1, UNANNOTATED - 1)
        except (OSError, ValueError, KeyError, TypeError, DyconError):
            continue
        if value is not None:
            values.add(value)
    return values
