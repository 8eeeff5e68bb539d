"""The sample project: synthetic scans, two of them labeled, to try the program with."""

from __future__ import annotations

import shutil
from pathlib import Path

from napari.viewer import Viewer
from qtpy.QtWidgets import QFileDialog

from napari_dycon.core.types import ItemProgressCallback
from napari_dycon.demo.synthetic import CLASSES, write_cohort
from napari_dycon.errors import UserError
from napari_dycon.project.store import Project
from napari_dycon.widgets.plugin.commands import get_panel
from napari_dycon.widgets.window.helpers import report_errors

FOLDER = "napari-dycon-sample"
CASES, LABELED_CASES = 8, 2


def open_sample_project(viewer: Viewer) -> None:
    """Ask for a folder, make the sample project in it, and open it."""
    panel = get_panel(viewer)
    chosen = QFileDialog.getExistingDirectory(panel, "Choose a folder for the sample project")
    if not chosen:
        return
    session, folder = panel.session, Path(chosen) / FOLDER
    if Project.is_project(folder / "project"):
        report_errors(session, session.open_project)(folder / "project")
        return

    def write(progress: ItemProgressCallback) -> None:
        progress(0, CASES, "synthetic scans")
        write_sample_scans(folder)

    def create(_: None) -> None:
        report_errors(session, session.create_project)(
            folder / "project", folder / "images", folder / "labels", list(CLASSES)
        )

    session.task_runner.submit_with_progress(
        "Making the sample project", write, create, session.report_error
    )


def write_sample_scans(folder: Path) -> None:
    """Write synthetic scans, the labels of the first ones, and the truth of all.

    Raises
    ------
    UserError
        The folder exists and is not empty, or cannot be written.
    """
    try:
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty. Choose another folder for the sample project.")
        write_cohort(folder, cases=CASES)
        (folder / "labels").mkdir()
        for file in sorted((folder / "truth").iterdir())[:LABELED_CASES]:
            shutil.copyfile(file, folder / "labels" / file.name)
    except OSError as error:
        raise UserError(
            f"The sample project cannot be written to {folder}: {error.strerror or error}. Choose "
            "another folder."
        ) from error
