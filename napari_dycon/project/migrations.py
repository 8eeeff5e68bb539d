"""Projects of earlier versions: brought to today's schema when they are read, kept as they were.

Reading changes nothing on the disk. Before such a project is written for the first time, its
``project.json`` is copied to ``project.json.v1.bak``, named for the schema that it had. A field
that was added with a default needs none of this: files without it are of the same schema.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_dycon.core.atomic import write_text
from napari_dycon.core.untrusted import parse_integer, parse_json
from napari_dycon.errors import ProjectError

SCHEMA_VERSION = 1
Values = dict[str, Any]
# From a version to the next one; each changes what it is given.
MIGRATIONS: dict[int, Callable[[Values], None]] = {}


def migrate(values: Values, path: Path) -> Values:
    """Bring the values of a ``project.json`` to today's schema.

    Raises
    ------
    ProjectError
        A newer version wrote it, or none at all.
    """
    version = parse_integer(values.get("schema_version", SCHEMA_VERSION), -(10**9), 10**9)
    if version is not None and version > SCHEMA_VERSION:
        raise ProjectError(
            f"{path.parent.name} was made by a newer version of napari-dycon (schema {version}, "
            f"this one knows {SCHEMA_VERSION}). Update napari-dycon to open it."
        )
    if version is None or (version != SCHEMA_VERSION and version not in MIGRATIONS):
        raise ProjectError(
            f"{path}: schema_version is wrong: expected {SCHEMA_VERSION} (found "
            f"{repr(values.get('schema_version'))[:40]}). Mend it by hand or restore a backup."
        )
    while version < SCHEMA_VERSION:
        try:
            MIGRATIONS[version](values)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise ProjectError(
                f"{path} of schema {version} cannot be read ({error!r}); it may be damaged. "
                "Restore a backup."
            ) from None
        version += 1
        values["schema_version"] = version
    return values


def back_up(path: Path, text: str) -> None:
    """Copy a ``project.json`` of an earlier schema beside it before it is written anew.

    Parameters
    ----------
    text : what stands in it now
    """
    version = parse_json(text).get("schema_version", SCHEMA_VERSION)
    if version == SCHEMA_VERSION:
        return
    backup, number = path.with_name(f"{path.name}.v{version}.bak"), 2
    while backup.exists() or backup.is_symlink():
        backup = path.with_name(f"{path.name}.v{version}-{number}.bak")
        number += 1
    write_text(backup, text)
