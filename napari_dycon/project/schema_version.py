"""Schema version of ``project.json``.

Adding a field with a default needs no new version, since files without it stay valid.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_dycon.core.untrusted import parse_integer
from napari_dycon.errors import ProjectError

SCHEMA_VERSION = 1


def check_schema_version(values: Mapping[str, Any], path: Path) -> None:
    """Raise ``ProjectError`` unless a ``project.json`` has the schema of this version."""
    version = parse_integer(values.get("schema_version", SCHEMA_VERSION), -(10**9), 10**9)
    if version is not None and version > SCHEMA_VERSION:
        raise ProjectError(
            f"{path.parent.name} was created by a newer version of napari-dycon (schema {version}, "
            f"this one supports {SCHEMA_VERSION}). Update napari-dycon to open it."
        )
    if version != SCHEMA_VERSION:
        raise ProjectError(
            f"{path}: schema_version is invalid: expected {SCHEMA_VERSION} (found "
            f"{repr(values.get('schema_version'))[:40]}). Edit the file or restore a backup."
        )
