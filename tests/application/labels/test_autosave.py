"""No annotation is lost: slow loading, two windows, failing disks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_dycon import io
from napari_dycon.application.task_runner import InlineTaskRunner
from napari_dycon.errors import DyconError, ProjectError
from napari_dycon.project.label_store import LabelStore
from napari_dycon.project.store import Project
from napari_dycon.session import Session

Merging = tuple[Session, Session, Callable[[], None]]


class LateTaskRunner(InlineTaskRunner):
    """Keeps answers back until they are asked for, as a slow disk does.

    With ``starts_late`` it also starts tasks only then, as a busy thread pool does.
    """

    def __init__(self, *, starts_late: bool = False) -> None:
        self.late: list[Callable[[], None]] | None = None
        self.starts_late = starts_late

    def submit(self, task: Any, on_done: Any, on_error: Any) -> None:
        if self.late is None:
            super().submit(task, on_done, on_error)
        elif self.starts_late:
            run = super().submit
            self.late.append(lambda: run(task, on_done, on_error))
        else:
            result = task()
            self.late.append(lambda: on_done(result))


@pytest.fixture
def session_with_late_results(project: Project) -> tuple[Session, LateTaskRunner]:
    background = LateTaskRunner()
    session = Session(background)
    session.open_project(project.path)
    session.show_case("scan-3")
    return session, background


def test_strokes_made_while_the_next_case_loads_are_saved(
    session_with_late_results: tuple[Session, LateTaskRunner],
) -> None:
    session, background = session_with_late_results
    background.late = []
    session.show_case("scan-4")
    session.case.label[1, 1, 1] = 1
    background.late.pop()()
    assert session.case.id == "scan-4"
    assert session.project.labels.read("scan-3")[1, 1, 1] == 1


def test_showing_the_same_case_again_keeps_newer_strokes(
    session_with_late_results: tuple[Session, LateTaskRunner],
) -> None:
    session, background = session_with_late_results
    background.late = []
    session.show_case("scan-3")  # reads the old file
    (arrive,) = background.late
    background.late = None
    session.case.label[1, 1, 1] = 1
    session.save_label()
    arrive()
    assert session.case.label[1, 1, 1] == 1
    session.case.label[2, 2, 2] = 1
    session.save_label()
    saved = session.project.labels.read("scan-3")
    assert (saved[1, 1, 1], saved[2, 2, 2]) == (1, 1)


def test_edits_of_two_sessions_are_merged(project: Project) -> None:
    one, two = Session(), Session()
    reported: list[str] = []
    one.message.connect(lambda _, text: reported.append(text))
    for session in (one, two):
        session.open_project(project.path)
        session.show_case("scan-3")
    two.case.label[5] = 0
    two.case.label[5, 5, 5] = 1
    two.flush()
    one.case.label[7, 7, 7] = 1
    one.flush()
    both = project.labels.read("scan-3")
    assert (both[5, 5, 5], both[5, 0, 0], both[7, 7, 7]) == (1, 0, 1)
    assert np.array_equal(one.case.label, both)
    assert "changed in another session" in reported[-1]
    assert not one.has_unsaved_changes


def test_simultaneous_saves_of_two_sessions_are_merged(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = Session(), Session()
    for session in (one, two):
        session.open_project(project.path)
        session.show_case("scan-3")
    two.case.label[5] = 0
    write, others = io.write_mask, []

    def meanwhile(*arguments: Any, **named: Any) -> None:
        if not others:  # the file that this save looked at is about to be replaced
            others.append(threading.Thread(target=one.flush))
            others[0].start()
            time.sleep(0.3)
        write(*arguments, **named)

    monkeypatch.setattr(io, "write_mask", meanwhile)
    one.case.label[7, 7, 7] = 1
    two.case.label[5, 5, 5] = 1
    two.flush()
    others[0].join()
    both = project.labels.read("scan-3")
    assert (both[5, 5, 5], both[5, 0, 0], both[7, 7, 7]) == (1, 0, 1)
    one.case.label[9, 9, 9] = 1
    one.flush()
    assert one.case.label[7, 7, 7] == one.case.label[5, 5, 5] == 1
    two.case.label[3, 3, 3] = 1
    two.flush()
    both = project.labels.read("scan-3")
    assert [both[n, n, n] for n in (3, 5, 7, 9)] == [1, 1, 1, 1]
    assert np.array_equal(two.case.label, both)


@pytest.fixture
def merging_sessions(
    session_with_late_results: tuple[Session, LateTaskRunner], project: Project
) -> Merging:
    """Two windows on one label; the first merges both on the disk, and its answer waits."""
    one, background = session_with_late_results
    two = Session()
    two.open_project(project.path)
    two.show_case("scan-3")
    two.case.label[7, 7, 7] = 1
    two.flush()
    one.case.label[5, 5, 5] = 1
    background.late = []
    one.save_label()

    def arrive() -> None:
        answers, background.late = background.late, None
        for answer in answers or []:
            answer()

    return one, two, arrive


def test_remote_edits_that_are_not_yet_shown_survive_closing(
    merging_sessions: Merging, project: Project
) -> None:
    one, two, arrive = merging_sessions
    one.case.label[4, 4, 4] = 1
    one.close_project()
    arrive()
    both = project.labels.read("scan-3")
    assert [both[n, n, n] for n in (4, 5, 7)] == [1, 1, 1]
    two.case.label[9, 9, 9] = 1
    two.flush()
    assert [two.case.label[n, n, n] for n in (4, 5, 7, 9)] == [1, 1, 1, 1]


def test_voxels_erased_after_a_merge_stay_erased(
    merging_sessions: Merging, project: Project
) -> None:
    one, _, arrive = merging_sessions
    one.case.label[5, 5, 5] = 0  # before the answer has come
    arrive()
    assert one.case.label[7, 7, 7] == 1
    one.case.label[7, 7, 7] = 0  # seen, and not wanted
    one.save_label()
    saved = project.labels.read("scan-3")
    assert (saved[5, 5, 5], saved[7, 7, 7]) == (0, 0)
    assert not one.has_unsaved_changes


def test_an_unsaved_label_is_reported_once_and_recovered(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session()
    session.open_project(project.path)
    session.show_case("scan-3")
    session.case.label[1, 1, 1] = 1

    def refuse(*_: Any, **__: Any) -> None:
        raise ProjectError("The disk is full.")

    monkeypatch.setattr(LabelStore, "save", refuse)
    reported: list[str] = []
    session.message.connect(lambda _, text: reported.append(text))
    with pytest.raises(ProjectError, match="disk is full"):
        session.save_label()
    session.save_label()  # not again at every second
    assert reported == ["The disk is full."]
    with pytest.raises(DyconError, match="disk is full"):
        session.show_case("scan-4")
    assert session.case.id == "scan-3"
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    session.save_recovery_copy()
    (kept,) = (tmp_path / "napari-dycon-recovered-labels").iterdir()
    assert str(kept) in reported[-1]
    monkeypatch.undo()
    from napari_dycon.io import read_label

    assert read_label(kept).array[1, 1, 1] == 1


def test_showing_the_same_case_again_adopts_a_pending_save(
    session_with_late_results: tuple[Session, LateTaskRunner],
) -> None:
    session, background = session_with_late_results
    session.case.label[1, 1, 1] = 1
    background.late = []
    session.save_label()  # written; its answer waits
    (saved,), background.late = background.late, None
    session.show_case("scan-3")
    saved()
    session.case.label[1, 1, 1] = 255  # erased again
    session.save_label()
    assert session.project.labels.read("scan-3")[1, 1, 1] == 255
    assert session.case.label[1, 1, 1] == 255


def test_a_failed_save_does_not_delay_saves_of_other_cases(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session()
    session.open_project(project.path)
    session.show_case("scan-3")
    session.case.label[1, 1, 1] = 1

    def refuse(*_: Any, **__: Any) -> None:
        raise ProjectError("The disk is full.")

    with monkeypatch.context() as full:
        full.setattr(LabelStore, "save", refuse)
        with pytest.raises(ProjectError, match="disk is full"):
            session.save_label()
    reported: list[str] = []
    session.message.connect(lambda _, text: reported.append(text))
    session.show_case("scan-4")  # saves the first one
    assert "The label of scan-3 has now been saved; nothing was lost." in reported
    session.case.label[2, 2, 2] = 1
    session.save_label()
    assert project.labels.read("scan-4")[2, 2, 2] == 1


@pytest.mark.parametrize("is_late", [False, True])
def test_an_edit_that_is_undone_before_it_was_written_stays_undone(
    project: Project, is_late: bool
) -> None:
    """The label equals its file again, but the save that is under way would change the file."""
    background = LateTaskRunner(starts_late=True)
    session = Session(background)
    session.open_project(project.path)
    session.show_case("scan-0")
    before = session.case.label.copy()
    background.late = []
    session.case.label[1, 1, 1] = 1
    session.save_label()
    background.late.pop(0)()  # the label is copied
    session.case.label[...] = before
    assert session.has_unsaved_changes
    if not is_late:
        session.save_label()
    else:
        session.flush()
    while background.late:
        background.late.pop(0)()
    np.testing.assert_array_equal(project.labels.read("scan-0"), before)
    assert not session.has_unsaved_changes


@pytest.mark.parametrize("shows_another", [False, True])
def test_a_copy_is_dropped_that_a_save_at_once_has_made_outdated(
    project: Project, shows_another: bool
) -> None:
    background = LateTaskRunner()
    session = Session(background)
    session.open_project(project.path)
    session.show_case("scan-0")
    background.late = []
    session.case.label[1, 1, 1] = 1
    session.save_label()  # copied, but not written yet
    session.case.label[2, 2, 2] = 1
    session.flush()
    expected = session.case.label.copy()
    (go_on,), background.late = background.late, None
    if shows_another:
        session.show_case("scan-1")
    go_on()
    np.testing.assert_array_equal(project.labels.read("scan-0"), expected)
    if not shows_another:
        session.case.label[3, 3, 3] = 1
        session.save_label()  # the next one is not kept waiting
        assert project.labels.read("scan-0")[3, 3, 3] == 1


def test_a_save_during_a_copy_is_made_afterwards(project: Project) -> None:
    background = LateTaskRunner()
    session = Session(background)
    session.open_project(project.path)
    session.show_case("scan-0")
    background.late = []
    session.case.label[1, 1, 1] = 1
    session.save_label()  # copied, but not written yet
    session.case.label[2, 2, 2] = 1
    session.save_label()
    while background.late:
        background.late.pop(0)()
    saved = project.labels.read("scan-0")
    assert saved[1, 1, 1] == saved[2, 2, 2] == 1
    assert not session.has_unsaved_changes


def test_an_unexpected_error_drops_no_label(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session()
    session.open_project(project.path)
    session.show_case("scan-3")

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    session.require_case().label[1, 1, 1] = 1
    with monkeypatch.context() as failing:
        failing.setattr(LabelStore, "save", fail)
        with pytest.raises(DyconError, match="scan-3 could not be saved"):
            session.flush()
    session.save_label()  # the timer tries again
    assert not session.has_unsaved_changes
    saved = project.labels.read("scan-3")
    assert saved is not None
    assert saved[1, 1, 1] == 1
