"""Messages of the session about added scans and exports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from helpers.nifti_files import save_nifti

from napari_dycon.application.task_runner import InlineTaskRunner
from napari_dycon.project.store import Project
from napari_dycon.session import Session


class LateTaskRunner(InlineTaskRunner):
    """Tells what came of long work only when it is asked to."""

    def __init__(self) -> None:
        self.ends: list[Callable[[], None]] = []

    def submit_with_progress(
        self, title: str, task: Any, on_done: Any, on_error: Any, **kept: Any
    ) -> None:
        super().submit_with_progress(
            title, task, lambda found: self.ends.append(lambda: on_done(found)), on_error, **kept
        )


def test_results_for_a_closed_project_are_not_reported(project: Project, tmp_path: Path) -> None:
    background = LateTaskRunner()
    session = Session(background)
    session.open_project(project.path)
    voxels = np.random.default_rng(0).normal(size=(20, 22, 18)).astype(np.float32)
    session.add_cases([save_nifti(tmp_path / "new.nii.gz", voxels)])
    session.open_project(Project.create(tmp_path / "other").path)
    reported: list[object] = []
    session.message.connect(lambda *what: reported.append(what))
    session.cases_changed.connect(lambda: reported.append("cases"))
    (end,) = background.ends
    end()
    assert reported == []
    assert "new" in {case.id for case in Project.open(project.path).cases}
