"""Files below a folder, as a person sees them there."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from napari_dycon.core.untrusted import kind_of
from napari_dycon.errors import FileFormatError

MADE_UP = ("/proc", "/sys") if os.name == "posix" else ()  # "files" whose reading may never end


def check_kind(path: Path) -> None:
    """Refuse what is neither file nor folder, and what the system makes up, before it is opened.

    Opening a pipe waits for its writer, and reading a device may never end.

    Raises
    ------
    FileFormatError
        There is nothing, or not what a scan can be.
    """
    try:
        mode = path.stat().st_mode
        made_up = _made_up(path)
    except PermissionError:
        raise FileFormatError(f"{path.name} may not be read: permission denied.") from None
    except (OSError, RuntimeError, ValueError):  # links in a circle, names of impossible length
        raise FileFormatError(f"There is no file {path}. Check its name and folder.") from None
    if made_up or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        what = "a file of the system" if made_up else kind_of(mode)
        raise FileFormatError(f"{path.name} is {what} and no scan. Expected a file or a folder.")


def _made_up(path: Path) -> bool:
    real = os.path.realpath(path)
    return any(real == place or real.startswith(f"{place}/") for place in MADE_UP)


def files_below(folder: Path, most: int | None = None) -> list[Path]:
    """All files below a folder, sorted, without hidden ones and those of hidden folders.

    Links to folders are followed; each folder counts once, under its own name where it has one
    here, so that loops end.

    Parameters
    ----------
    most : how many files there can be; by default any number

    Raises
    ------
    FileFormatError
        A folder may not be read: what lies in it would be missed by nobody. Or there are too many.
    """
    seen = {_identity(place) for place in MADE_UP if os.path.isdir(place)}
    found: list[Path] = []
    starts = [folder]
    for start in starts:  # grows by the links that are met
        for place, folders, files in os.walk(start, onerror=_refuse):
            if (identity := _identity(place)) in seen:
                folders.clear()
                continue
            seen.add(identity)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            starts += (path for name in folders if (path := Path(place, name)).is_symlink())
            found += (Path(place, name) for name in files if not name.startswith("."))
            if most is not None and len(found) > most:
                raise FileFormatError(
                    f"{folder} holds more than {most:,} files; expected those of one scan. Choose "
                    "the folder that they lie in."
                )
    return sorted(p for p in found if p.is_file() and not (p.is_symlink() and _made_up(p)))


def _identity(folder: str) -> tuple[int, int]:
    state = os.stat(folder)
    return state.st_dev, state.st_ino


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
