"""Cases and structures of the open project are changed safely by a session."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_dycon.application.predictions.status import PredictionStatus
from napari_dycon.application.training.status import RunStatus
from napari_dycon.core.types import UNANNOTATED
from napari_dycon.errors import BusyError, UserError
from napari_dycon.project.editing.structures import StructureStore
from napari_dycon.project.store import Project
from napari_dycon.session import Session

OTHER_SESSION = """
import sys, time
from napari_dycon.session import Session
session = Session()
session.open_project(sys.argv[1])
print("open", flush=True)
time.sleep(60)
"""


@pytest.fixture
def session(project: Project) -> Iterator[Session]:
    """Session on the project, with scan-1 active."""
    session = Session()
    session.open_project(project.path)
    session.show_case("scan-1")
    yield session
    session.close_project()


def test_strokes_are_saved_before_the_active_case_is_removed(session: Session) -> None:
    shown: list[object] = []
    texts: list[str] = []
    session.case_shown.connect(shown.append)
    session.message.connect(lambda _, text: texts.append(text))
    session.require_case().label[0, 0, :3] = 1
    expected = session.require_case().label.copy()
    session.project_editor.remove_case("scan-1")
    assert shown == [None]
    assert session.case is None
    assert not session.has_unsaved_changes
    assert "scan-1 was removed" in texts[-1]
    session.flush()
    assert not (session.require_project().path / "labels" / "scan-1.nii.gz").exists()
    session.project_editor.restore_case("scan-1")
    session.show_case("scan-1")
    assert np.array_equal(session.require_case().label, expected)


def test_a_renamed_case_keeps_its_files_and_stays_active(session: Session) -> None:
    session.project_editor.rename_case("scan-1", "first patient")
    assert session.require_case().id == "scan-1"
    assert session.require_case().display_name == "first patient"
    session.show_case("scan-2")
    assert session.require_case().display_name == "scan-2"
    session.show_case("scan-1")
    assert session.require_case().display_name == "first patient"
    session.require_case().label[0, 0, :3] = 1
    session.flush()
    project = Project.open(session.require_project().path)
    assert project.get_case("scan-1").display_name == "first patient"
    assert (project.labels.read("scan-1")[0, 0, :3] == 1).all()


def test_a_deleted_structure_leaves_a_valid_label_without_history(session: Session) -> None:
    project = session.require_project()
    project.add_class("rim")
    session.require_case().label[0] = 2
    counted: list[int] = []
    session.project_editor.count_labels(2, counted.append)
    assert counted == [1]  # the strokes were saved before counting
    shown: list[object] = []
    session.case_shown.connect(shown.append)
    session.project_editor.delete_structure(2)
    assert shown[0] is None  # the layers are made again, without undo steps
    assert session.require_case().id == "scan-1"
    assert (session.require_case().label[0] == UNANNOTATED).all()
    session.require_case().label[1, 0, 0] = 1
    session.flush()
    assert not session.has_unsaved_changes
    with pytest.raises(UserError, match="at least one structure"):
        session.project_editor.count_labels(1, counted.append)


def test_a_count_of_labels_is_dropped_once_another_project_is_open(
    session: Session, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.add_class("rim")
    session.open_project(project.path)
    other = shutil.copytree(project.path, tmp_path / "other")
    counted: list[int] = []

    def open_other(*_: object) -> int:
        session.open_project(other)
        return 1

    monkeypatch.setattr(StructureStore, "count_labels", open_other)
    session.project_editor.count_labels(2, counted.append)
    assert counted == []  # no question that would delete a structure of this project


def test_a_case_that_is_removed_while_it_is_read_is_not_shown(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Callable[[], None]] = []

    def answer_later(task: Any, on_done: Any, _: Any) -> None:
        answers.append(functools.partial(on_done, task()))

    with monkeypatch.context() as late:
        late.setattr(session.task_runner, "submit", answer_later)
        session.show_case("scan-2")
    session.project_editor.remove_case("scan-2")
    answers.pop()()
    assert session.require_case().id == "scan-1"


def test_nothing_is_removed_during_a_training_a_prediction_or_an_export(session: Session) -> None:
    editor, predictions = session.project_editor, session.review.predictions
    busy = dataclasses.replace(RunStatus(), phase="training")
    for start, stop, reason in (
        (
            lambda: session.state.set_run_status(busy),
            lambda: session.state.set_run_status(RunStatus()),
            "training is running",
        ),
        (
            lambda: setattr(predictions, "status", PredictionStatus("001", ("a",))),
            lambda: setattr(predictions, "status", None),
            "a prediction is running",
        ),
        (
            lambda: setattr(session.import_export, "is_exporting", True),
            lambda: setattr(session.import_export, "is_exporting", False),
            "an export is running",
        ),
    ):
        start()
        assert editor.edit_blocked_reason() == reason
        for change in (
            lambda: editor.remove_case("scan-1"),
            lambda: editor.delete_structure(1),
            lambda: editor.restore_case("scan-1"),
        ):
            with pytest.raises(BusyError, match=reason):
                change()
        stop()
    assert session.require_case().id == "scan-1"
    assert editor.edit_blocked_reason() == ""


def test_nothing_is_removed_while_another_session_has_the_project_open(session: Session) -> None:
    session.require_project().add_class("rim")
    path = session.require_project().path
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER_SESSION, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        for change in (
            lambda: session.project_editor.remove_case("scan-2"),
            lambda: session.project_editor.delete_structure(1),
        ):
            with pytest.raises(BusyError, match="also open in another session"):
                change()
        assert session.case is not None  # shown again after the refusal
        assert len(Project.open(path).cases) == 6
        assert len(Project.open(path).classes) == 2
    finally:
        process.kill()
        process.communicate()
    session.project_editor.remove_case("scan-2")
    assert len(Project.open(path).cases) == 5


def test_no_case_opens_while_labels_are_changed(session: Session) -> None:
    session.case_service.blocked_reason = "Deleting a structure"
    with pytest.raises(BusyError, match="Deleting a structure"):
        session.show_case("scan-2")
    session.case_service.blocked_reason = ""
    session.show_case("scan-2")


def test_a_failed_removal_shows_the_case_again(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise UserError("The disk is full.")

    project = session.require_project()
    before = project.labels.read("scan-1")
    monkeypatch.setattr("napari_dycon.project.editing.removed_cases.write_json", fail)
    with pytest.raises(UserError, match="disk is full"):
        session.project_editor.remove_case("scan-1")
    assert session.require_case().id == "scan-1"
    assert np.array_equal(project.labels.read("scan-1"), before)
    assert Path(project.path / "labels" / "scan-1.nii.gz").is_file()
