"""Discovery of the visible files below a folder."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from napari_dycon.core.untrusted import describe_inode
from napari_dycon.errors import FileFormatError

VIRTUAL_FILESYSTEMS = (
    ("/proc", "/sys") if os.name == "posix" else ()
)  # reading their files may never end


def check_path_type(path: Path) -> None:
    """Reject anything but regular files and folders, and virtual file systems, before opening.

    Opening a pipe waits for its writer, and reading a device may never end.

    Raises
    ------
    FileFormatError
        The path does not exist, or is not a regular file or folder.
    """
    try:
        mode = path.stat().st_mode
        is_virtual = _is_virtual(path)
    except PermissionError:
        raise FileFormatError(f"{path.name} cannot be read: permission denied.") from None
    except (OSError, RuntimeError, ValueError):  # circular links, too long names
        raise FileFormatError(f"File {path} does not exist. Check its name and folder.") from None
    if is_virtual or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = "a system file" if is_virtual else describe_inode(mode)
        raise FileFormatError(f"{path.name} is {kind}, not a scan. Expected a file or folder.")


def _is_virtual(path: Path) -> bool:
    resolved = os.path.realpath(path)
    return any(
        resolved == place or resolved.startswith(f"{place}/") for place in VIRTUAL_FILESYSTEMS
    )


def find_files(folder: Path, max_files: int | None = None) -> list[Path]:
    """List all files below a folder, sorted, without hidden files and folders.

    Links to folders are followed; each folder is visited once, preferably under its own name, so
    that loops end.

    Parameters
    ----------
    max_files : maximum number of files; unlimited by default

    Raises
    ------
    FileFormatError
        A folder cannot be read (ignoring it would go unnoticed), or there are too many files.
    """
    seen = {_get_inode(directory) for directory in VIRTUAL_FILESYSTEMS if os.path.isdir(directory)}
    paths: list[Path] = []
    roots = [folder]
    for root in roots:  # grows by the links found
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
                    f"{folder} contains more than {max_files:,} files; expected those of one "
                    "scan. Choose the folder of the scan."
                )
    return sorted(p for p in paths if p.is_file() and not (p.is_symlink() and _is_virtual(p)))


def _get_inode(folder: str) -> tuple[int, int]:
    state = os.stat(folder)
    return state.st_dev, state.st_ino


def folder_fingerprint(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return name, modification time and size of everything in a folder, to detect changes."""
    states = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # broken links
            state = path.stat()
            states.append((path.name, state.st_mtime_ns, state.st_size))
    return tuple(sorted(states))


def _reject(error: OSError) -> None:
    raise FileFormatError(
        f"The folder {error.filename} cannot be read ({error.strerror}). Change its permissions, "
        "or move it to another folder."
    )
