"""Readers of the plugin: scans, DICOM folders and project folders."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from napari import current_viewer

from napari_dycon.errors import FileFormatError
from napari_dycon.io import is_scan
from napari_dycon.io.dicom.files import is_dicom
from napari_dycon.project.store import Project
from napari_dycon.widgets.dialogs.progress import find_main_window
from napari_dycon.widgets.plugin.open_scans import LayerData, open_scans

NO_LAYERS: list[Any] = [(None,)]  # npe2's value for success without a layer
# Limits of the search before a folder counts as having no DICOM files.
MAX_DEPTH, MAX_FOLDERS, N_PROBED_FILES = 3, 40, 4
PathOrPaths = str | Sequence[str]


def get_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[LayerData]] | None:
    """Return the reader for scans, DICOM folders and project folders; ``None`` for anything else.

    A project folder needs a window to be opened in.
    """
    paths = _to_paths(path)
    if len(paths) == 1 and Project.is_project(paths[0]):
        return open_project if find_main_window() is not None and current_viewer() else None
    return read_scans if paths and all(_is_readable(p) for p in paths) else None


def read_scans(path: PathOrPaths) -> list[LayerData]:
    """Read scans as image layers in canonical orientation, in millimeters.

    In a window the user selects the series of a folder and whether to resample irregular ones, and
    errors are shown. Without a window errors are raised.
    """
    return open_scans(_to_paths(path), find_main_window()) or NO_LAYERS


def open_project(path: PathOrPaths) -> list[LayerData]:
    """Open a project folder in the panel of the current window, opening the panel if necessary."""
    from napari_dycon.widgets.plugin.commands import get_panel
    from napari_dycon.widgets.window.helpers import report_errors

    viewer = current_viewer()
    if viewer is not None:
        panel = get_panel(viewer)
        report_errors(panel.session, panel.session.open_project)(_to_paths(path)[0])
    return NO_LAYERS


def _to_paths(path: PathOrPaths) -> list[Path]:
    return [Path(path)] if isinstance(path, str | os.PathLike) else [Path(p) for p in path]


def _is_readable(path: Path) -> bool:
    return contains_dicom(path) if path.is_dir() else is_scan(path) or _is_dicom_file(path)


def _is_dicom_file(path: Path) -> bool:
    try:
        return path.is_file() and is_dicom(path)
    except FileFormatError:  # not readable; another reader may support it
        return False


def contains_dicom(folder: Path) -> bool:
    """Whether a folder contains DICOM files near its top.

    Only a few files of a few folders are checked.
    """
    folders = deque([(folder, 1)])
    for _ in range(MAX_FOLDERS):
        if not folders:
            break
        current, depth = folders.popleft()
        try:
            with os.scandir(current) as listing:
                entries = sorted(islice(listing, 1000), key=lambda e: e.name)
            subfolders = [e for e in entries if e.is_dir()]
            files = [e for e in entries if not e.name.startswith(".") and e.is_file()]
        except OSError:  # a folder without read permission
            continue
        if any(
            _is_dicom_file(Path(e.path))
            for e in files[:N_PROBED_FILES] + files[N_PROBED_FILES:][-N_PROBED_FILES:]
        ):
            return True
        if depth < MAX_DEPTH:
            folders.extend((Path(e.path), depth + 1) for e in subfolders)
    return False
