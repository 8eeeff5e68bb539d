"""The reader of scans and projects that the manifest contributes."""

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
from napari_dycon.widgets.dialogs.progress import main_window
from napari_dycon.widgets.plugin.open_scans import LayerData, open_scans

NOTHING: list[Any] = [(None,)]  # npe2's word for: done, and no layer has to be added
# How far a folder is looked through before it counts as one without DICOM files.
LEVELS, FOLDERS, FILES = 3, 40, 4
Paths = str | Sequence[str]


def get_reader(path: Paths) -> Callable[[Paths], list[LayerData]] | None:
    """Return the reader for scans, DICOM folders and project folders; ``None`` for anything else.

    A project folder needs a window to be opened in.
    """
    paths = _paths(path)
    if len(paths) == 1 and Project.is_project(paths[0]):
        return open_project if main_window() is not None and current_viewer() else None
    return read_scans if paths and all(_is_ours(p) for p in paths) else None


def read_scans(path: Paths) -> list[LayerData]:
    """Read scans as image layers in canonical orientation, in millimeters.

    In a window a person is asked which series of a folder to open and whether to resample uneven
    ones, and errors are told there; nothing is opened then. Without a window errors are raised.
    """
    return open_scans(_paths(path), main_window()) or NOTHING


def open_project(path: Paths) -> list[LayerData]:
    """Open a project folder in the panel of the window in front; the panel is opened as needed."""
    from napari_dycon.widgets.plugin.commands import panel_of
    from napari_dycon.widgets.window.helpers import guarded

    viewer = current_viewer()
    if viewer is not None:
        panel = panel_of(viewer)
        guarded(panel.session, panel.session.open_project)(_paths(path)[0])
    return NOTHING


def _paths(path: Paths) -> list[Path]:
    return [Path(path)] if isinstance(path, str | os.PathLike) else [Path(p) for p in path]


def _is_ours(path: Path) -> bool:
    return holds_dicom(path) if path.is_dir() else is_scan(path) or _is_dicom(path)


def _is_dicom(path: Path) -> bool:
    try:
        return path.is_file() and is_dicom(path)
    except FileFormatError:  # it may not be read; somebody else may know what it is
        return False


def holds_dicom(folder: Path) -> bool:
    """Whether there are DICOM files near a folder's top: a few files of a few folders are tried."""
    folders = deque([(folder, 1)])
    for _ in range(FOLDERS):
        if not folders:
            break
        here, level = folders.popleft()
        try:
            with os.scandir(here) as found:
                entries = sorted(islice(found, 1000), key=lambda e: e.name)
            below = [e for e in entries if e.is_dir()]
            files = [e for e in entries if not e.name.startswith(".") and e.is_file()]
        except OSError:  # a folder that may not be read
            continue
        if any(_is_dicom(Path(e.path)) for e in files[:FILES] + files[FILES:][-FILES:]):
            return True
        if level < LEVELS:
            folders.extend((Path(e.path), level + 1) for e in below)
    return False
