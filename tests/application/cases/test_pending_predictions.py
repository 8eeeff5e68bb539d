"""A large scan is shown before its prediction is read."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from napari_dycon.application.cases import service
from napari_dycon.application.task_runner import InlineTaskRunner
from napari_dycon.errors import ProjectError
from napari_dycon.project.prediction_store import PredictionStore
from napari_dycon.project.store import Project
from napari_dycon.session import Session


class HeldTaskRunner(InlineTaskRunner):
    """Runs tasks when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Callable[[], None]] = []

    def submit(self, task: Any, on_done: Any, on_error: Any) -> None:
        self.held.append(lambda: super(HeldTaskRunner, self).submit(task, on_done, on_error))

    def run_next(self) -> None:
        self.held.pop(0)()


@pytest.fixture
def predicted(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with a prediction, whose scans all count as large."""
    monkeypatch.setattr(service, "MAX_VOXELS_AT_ONCE", 1)
    write_prediction(project, 1)
    return project


def write_prediction(project: Project, value: int) -> str:
    shape = project.read_image("scan-3").shape
    mask = np.full(shape, value, np.uint8)
    uncertainty = np.zeros(shape, np.float32)
    uncertainty[4:8, 4:8, 4:8] = 0.9
    run = project.runs.create("dycon", {})
    project.predictions.write(run.id, "scan-3", mask, uncertainty, uncertainty)
    return run.id


@pytest.fixture
def runner() -> HeldTaskRunner:
    return HeldTaskRunner()


@pytest.fixture
def session(predicted: Project, runner: HeldTaskRunner) -> Session:
    session = Session(runner)
    session.open_project(predicted.path)
    while runner.held:
        runner.run_next()
    session.show_case("scan-3")
    runner.run_next()
    return session


def test_the_prediction_follows_the_scan(session: Session, runner: HeldTaskRunner) -> None:
    case = session.case
    assert case is not None
    assert case.is_prediction_pending
    assert case.prediction is None
    assert case.run is None
    assert not case.hotspots
    case.label[0] = 1  # drawn meanwhile
    changed: list[object] = []
    session.prediction_changed.connect(changed.append)
    runner.run_next()
    assert session.case is case
    assert changed == [case]
    assert not case.is_prediction_pending
    assert case.prediction is not None
    assert case.run
    assert case.hotspots
    assert case.display_thresholds
    assert (case.label[0] == 1).all()


def test_the_complete_case_is_cached_with_its_saved_label(
    session: Session, runner: HeldTaskRunner
) -> None:
    assert session.case is not None
    drawn = session.case.label
    drawn[0] = 1
    runner.run_next()
    cached = session.case_service.cache.load(session.require_project(), "scan-3", 1)
    assert cached.case.prediction is not None
    assert not cached.case.is_prediction_pending
    assert not (cached.case.label[0] == 1).any()  # not saved yet


def test_a_newer_preview_is_not_replaced(session: Session, runner: HeldTaskRunner) -> None:
    case = session.case
    assert case is not None
    newer = write_prediction(session.require_project(), 2)
    session.review.refresh("scan-3")
    runner.held.reverse()
    runner.run_next()  # the preview
    assert case.run == newer
    prediction = case.prediction
    runner.run_next()
    assert case.run == newer
    assert case.prediction is prediction


def test_another_case_shown_meanwhile_is_unchanged(
    session: Session, runner: HeldTaskRunner
) -> None:
    session.show_case("scan-4")
    runner.held.reverse()
    runner.run_next()
    assert session.case is not None
    assert session.case.id == "scan-4"
    while runner.held:
        runner.run_next()
    assert session.case.id == "scan-4"
    assert session.case.prediction is None
    assert not session.case.is_prediction_pending


def test_an_unreadable_prediction_is_told_and_not_awaited(
    session: Session, runner: HeldTaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ProjectError("The file is damaged.")

    monkeypatch.setattr(PredictionStore, "read", fail)
    messages: list[str] = []
    session.message.connect(lambda _, text: messages.append(text))
    runner.run_next()
    assert session.case is not None
    assert not session.case.is_prediction_pending
    assert session.case.prediction is None
    assert any("is damaged" in text for text in messages)


def test_a_read_that_ends_late_does_not_replace_a_newer_prediction(
    session: Session, runner: HeldTaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.run_next()
    case = session.require_case()
    answers: list[Callable[[], None]] = []

    def answer_later(task: Any, on_done: Any, _: Any) -> None:
        answers.append(functools.partial(on_done, task()))

    monkeypatch.setattr(runner, "submit", answer_later)
    session.review.refresh("scan-3")
    newer = write_prediction(session.require_project(), 2)
    session.review.refresh("scan-3")
    first, second = answers
    second()
    assert case.run == newer
    first()
    assert case.run == newer
