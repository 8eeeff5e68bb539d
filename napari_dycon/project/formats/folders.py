"""Files below a folder, as a person sees them there."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from napari_dycon.errors import FileFormatError


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, sorted, without hidden ones and those of hidden folders.

    Links to folders are followed; each folder counts once, under its own name where it has one
    here, so that loops end.

    Raises
    ------
    FileFormatError
        A folder may not be read: what lies in it would be missed by nobody.
    """
    seen: set[tuple[int, int]] = set()
    found: list[Path] = []
    starts = [folder]
    for start in starts:  # grows by the links that are met
        for place, folders, files in os.walk(start, onerror=_refuse):
            state = os.stat(place)
            if (state.st_dev, state.st_ino) in seen:
                folders.clear()
                continue
            seen.add((state.st_dev, state.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            starts += (path for name in folders if (path := Path(place, name)).is_symlink())
            found += (Path(place, name) for name in files if not name.startswith("."))
    return sorted(path for path in found if path.is_file())


def folder_state(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, time of change and size of everything in a folder: other files have another state."""
    states = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # links to nowhere
            state = path.stat()
            states.append((path.name, state.st_mtime_ns, state.st_size))
    return tuple(sorted(states))


def _refuse(error: OSError) -> None:
    raise FileFormatError(
        f"The folder {error.filename} cannot be read ({error.strerror}). Expected folders that you "
        "may read; change who may, or move it away."
    )
