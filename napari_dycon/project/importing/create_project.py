"""Creation of projects from folders of scans and labels."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from napari_dycon.core.types import ItemProgressCallback
from napari_dycon.project.importing.case_import import OnSkip
from napari_dycon.project.importing.discovery import Scan
from napari_dycon.project.importing.import_plan import ImportPlan, OnNote, plan_import
from napari_dycon.project.manifest import check_target_folder
from napari_dycon.project.store import Project


def create_project(
    path: Path | str,
    images: Path | str,
    labels: Path | str | None = None,
    classes: Sequence[str] | None = None,
    progress: ItemProgressCallback | None = None,
    *,
    n_labeled: int | None = None,
    channels: Sequence[str] | None = None,
    resample: bool = False,
    on_note: OnNote | None = None,
    on_skip: OnSkip | None = None,
    scans: Sequence[Scan] | None = None,
) -> Project:
    """Create a project from a folder of scans and, for some of them, labels of the same name.

    All scans and labels are read and checked first; if one is invalid and there is no ``on_skip``,
    no project is created.

    Parameters
    ----------
    path : folder of the project, new or empty
    images, labels, classes, n_labeled, channels, scans : see ``plan_import``
    resample : resample irregular or tilted slices to regular spacing
    on_note : called with each decision that was made to read a scan
    on_skip : called with each scan that cannot be used and is left out; see ``Project.add_cases``
    """
    path = Path(path).absolute()
    check_target_folder(path)
    plan = plan_import(
        images,
        labels,
        classes,
        n_labeled=n_labeled,
        channels=channels,
        scans=scans,
        on_note=on_note,
        on_skip=on_skip,
    )
    return create_from_plan(
        path, plan, progress, resample=resample, on_note=on_note, on_skip=on_skip
    )


def create_from_plan(
    path: Path,
    plan: ImportPlan,
    progress: ItemProgressCallback | None = None,
    *,
    resample: bool = False,
    on_note: OnNote | None = None,
    on_skip: OnSkip | None = None,
) -> Project:
    """Create a project with all its cases, or nothing at all; see ``create_project``."""
    missing_folders = [p for p in (path, *path.parents) if not p.exists()]
    project = Project.create(path, classes=plan.classes, channels=plan.channels)
    try:
        project.add_cases(
            [scan.images for scan in plan.scans],
            labels=plan.labels,
            ids=[scan.name for scan in plan.scans],
            value_map=plan.value_map,
            resample=resample,
            progress=progress,
            on_note=on_note,
            on_skip=on_skip,
        )
    except BaseException:
        # The folder was new or empty before; everything in it was written here.
        shutil.rmtree(path, ignore_errors=True)
        if not missing_folders:
            path.mkdir(exist_ok=True)
        for parent in missing_folders[1:]:
            with contextlib.suppress(OSError):  # another program may use it by now
                parent.rmdir()
        raise
    return project
