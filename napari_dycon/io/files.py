"""Files below a folder, as a person sees them there."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from napari_dycon.core.untrusted import describe_inode
from napari_dycon.errors import FileFormatError

VIRTUAL_FILESYSTEMS = (
    ("/proc", "/sys") if os.name == "posix" else ()
)  # "files" whose reading may never end


def check_path_type(path: Path) -> None:
    """Refuse what is neither file nor folder, and what the system makes up, before it is opened.

    Opening a pipe waits for its writer, and reading a device may never end.

    Raises
    ------
    FileFormatError
        There is nothing, or not what a scan can be.
    """
    try:
        mode = path.stat().st_mode
        is_virtual = _is_virtual(path)
    except PermissionError:
        raise FileFormatError(f"{path.name} may not be read: permission denied.") from None
    except (OSError, RuntimeError, ValueError):  # links in a circle, names of impossible length
        raise FileFormatError(f"There is no file {path}. Check its name and folder.") from None
    if is_virtual or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = "a file of the system" if is_virtual else describe_inode(mode)
        raise FileFormatError(f"{path.name} is {kind} and no scan. Expected a file or a folder.")


def _is_virtual(path: Path) -> bool:
    resolved = os.path.realpath(path)
    return any(
        resolved == place or resolved.startswith(f"{place}/") for place in VIRTUAL_FILESYSTEMS
    )


def find_files(folder: Path, max_files: int | None = None) -> list[Path]:
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
    seen = {_get_inode(directory) for directory in VIRTUAL_FILESYSTEMS if os.path.isdir(directory)}
    paths: list[Path] = []
    roots = [folder]
    for root in roots:  # grows by the links that are met
        for place, folders, files in os.walk(root, onerror=_reject):
            if (identity := _get_inode(place)) in seen:
                folders.clear()
                continue
            seen.add(identity)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            roots += (path for name in folders if (path := Path(place, name)).is_symlink())
            paths += (Path(place, name) for name in files if not name.startswith("."))
            if max_files is not None and len(paths) > max_files:
                raise FileFormatError(
                    f"{folder} holds more than {max_files:,} files; expected those of one scan. "
                    "Choose the folder that they lie in."
                )
    return sorted(p for p in paths if p.is_file() and not (p.is_symlink() and _is_virtual(p)))


def _get_inode(folder: str) -> tuple[int, int]:
    state = os.stat(folder)
    return state.st_dev, state.st_ino


def folder_fingerprint(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, time of change and size of everything in a folder: other files have another state."""
    states = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # links to nowhere
            state = path.stat()
            states.append((path.name, state.st_mtime_ns, state.st_size))
    return tuple(sorted(states))


def _reject(error: OSError) -> None:
    raise FileFormatError(
        f"The folder {error.filename} cannot be read ({error.strerror}). Expected folders that you "
        "may read; change who may, or move it away."
    )
