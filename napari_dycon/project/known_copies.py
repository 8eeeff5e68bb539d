"""Recognition of a copied project: it reads no scan that a trusted project does not read.

The user who copies a project of their own has already decided that its scans are read. Nothing but
the scans is compared, so that a project from another source, even a changed copy, is recognized
only if it reads nothing new.
"""

from __future__ import annotations

import os
from pathlib import Path

from napari_dycon.errors import DyconError
from napari_dycon.project import manifest
from napari_dycon.project.case_images import channel_paths
from napari_dycon.project.models import Case
from napari_dycon.project.trusted_projects import list_trusted

MAX_COMPARED = 50  # trusted projects, the newest ones


def reads_only_known_scans(folder: Path, cases: list[Case]) -> bool:
    """Check whether the project in a folder reads only scans that one trusted project reads.

    Projects on network drives, and those that no longer exist, are not compared.
    """
    wanted = _list_scans(folder, cases)
    if any(_is_on_network(path) for path in wanted):
        return False
    for path in list_trusted()[-MAX_COMPARED:]:
        known = Path(path)
        if _is_on_network(path):
            continue
        try:
            if not manifest.is_project(known):
                continue
            content = manifest.read(known)
        except (DyconError, OSError):  # damaged; it is not open
            continue
        if wanted <= _list_scans(known, content.cases):
            return True
    return False


def _list_scans(folder: Path, cases: list[Case]) -> set[str]:
    """List the resolved paths of scans outside the folder of a project."""
    own = os.path.realpath(folder) + os.sep
    scans = set()
    for case in cases:
        for path in channel_paths(folder, case.images):
            text = str(path)
            if not _is_on_network(text):
                text = os.path.realpath(text)
            if not text.startswith(own):
                scans.add(os.path.normcase(text))
    return scans


def _is_on_network(path: str) -> bool:
    """Check for a Windows share, which must not be contacted before the user agrees."""
    return path.startswith(("\\\\", "//"))
