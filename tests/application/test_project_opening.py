"""The project that was opened last is shown, whichever is read first."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from napari_dycon.project.store import Project
from napari_dycon.session import Session


def test_a_slow_drive_does_not_bring_back_a_project_that_was_opened_before(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copytree(project.path, tmp_path / "other"))
    session = Session()
    answers: list[Callable[[], None]] = []

    def answer_later(task: Any, on_done: Any, _: Any) -> None:
        answers.append(functools.partial(on_done, task()))

    with monkeypatch.context() as late:
        late.setattr(session.task_runner, "submit", answer_later)
        session.open_project(project.path)
        session.open_project(other)
    first, second = answers
    second()
    first()
    assert session.require_project().path == other
