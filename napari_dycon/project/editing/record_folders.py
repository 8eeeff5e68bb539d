"""Folders of records inside a project, for what was removed from it."""

from __future__ import annotations

from pathlib import Path

from napari_dycon.core.atomic import ensure_dir
from napari_dycon.core.containment import ensure_within
from napari_dycon.errors import ProjectError

MAX_RECORDS = 100_000


def create_record_folder(root: Path, parent: Path, name: str) -> Path:
    """Create a folder for a record, beside those of earlier records with the same name.

    Parameters
    ----------
    root : folder of the project
    parent : folder of all records of a kind, inside the project
    name : name of the new folder; later ones get a number, as in "name~2"

    Raises
    ------
    ProjectError
        The folder cannot be created, or there are too many.
    """
    parent = ensure_within(root, parent)
    ensure_dir(parent, existing_root=root)
    for number in range(1, MAX_RECORDS):
        folder = parent / (name if number == 1 else f"{name}~{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise ProjectError(
                f"The folder {folder} cannot be created: {error.strerror or error}. Nothing was "
                "removed."
            ) from error
        return folder
    raise ProjectError(f"{parent} contains too many folders. Nothing was removed.")
