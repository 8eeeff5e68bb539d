"""The end of a run is shown in every tab, unless a warning already reports it."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.tiny_runs import TINY

from napari_dycon.application.training.history import read_training_history
from napari_dycon.application.training.status import describe_outcome
from napari_dycon.core.types import UNANNOTATED
from napari_dycon.engine.config import make_config
from napari_dycon.engine.training.run import train
from napari_dycon.project.runs.events import (
    Event,
    FailedEvent,
    FinishedEvent,
    StartedEvent,
    StepEvent,
    StoppedEvent,
    WarningEvent,
)
from napari_dycon.project.store import Project
from napari_dycon.session import Session

STARTED = StartedEvent(run="001-dycon", validation=1)
STEP = StepEvent(step=100, progress=0.5)
SHORT_TIME = "The time was too short to learn much (3 steps). Train longer."


@pytest.mark.parametrize(
    ("event", "n_validation", "text"),
    [
        (
            FinishedEvent(step=120, elapsed_s=180.0, dice=0.404),
            1,
            "Training finished: 120 steps in 3 min. Network Dice on the validation case: 0.40.",
        ),
        (
            StoppedEvent(step=1, elapsed_s=45.0, dice=0.5),
            2,
            "Training stopped: 1 step in 45 s. Network Dice on 2 validation cases: 0.50.",
        ),
        (FinishedEvent(elapsed_s=180.0), 0, "Training finished: 0 steps in 3 min."),
    ],
)
def test_the_outcome_in_words(
    event: FinishedEvent | StoppedEvent, n_validation: int, text: str
) -> None:
    assert describe_outcome(event, n_validation) == text


@pytest.mark.parametrize(
    ("events", "last"),
    [
        (
            (STARTED, STEP, FinishedEvent(step=120, elapsed_s=180.0, dice=0.4)),
            ("result", "Training finished: 120 steps in 3 min. "
            "Network Dice on the validation case: 0.40."),
        ),
        ((STARTED, WarningEvent(message="One scan is blank."), STEP, StoppedEvent(elapsed_s=60.0)),
         ("result", "Training stopped: 0 steps in 1 min.")),
        (
            (STARTED, STEP, WarningEvent(message=SHORT_TIME), FinishedEvent(elapsed_s=9.0)),
            ("warning", f"Training finished: 0 steps in 9 s. {SHORT_TIME}"),
        ),
        ((STARTED, FailedEvent(message="The disk is full.")), ("error", "The disk is full.")),
    ],
)  # fmt: skip
def test_the_message_at_the_end(
    project: Project, events: tuple[Event, ...], last: tuple[str, str]
) -> None:
    session = Session()
    session.set_project(project)
    run = project.runs.create("dycon", {})
    messages: list[tuple[str, str]] = []
    session.message.connect(lambda level, text: messages.append((level, text)))
    session.run_controller._run = run
    for event in events:
        session.run_controller._on_event(run, event)
    assert messages[-1] == last
    assert session.status.phase == "idle"


def test_after_a_usable_run_the_message_says_what_is_next(project: Project) -> None:
    session = Session()
    session.set_project(project)
    messages: list[tuple[str, str]] = []
    session.message.connect(lambda level, text: messages.append((level, text)))
    run = session.start_training(make_config("supervised", **TINY))
    session.wait(120)
    assert session.require_project().runs.get(run).has_weights
    level, text = messages[-1]
    assert text.startswith("Training finished: 4 steps in ")
    assert level == "warning" or text.endswith("Next: predict cases in the Review tab.")


def test_cases_that_were_left_out_are_not_counted_in_the_history(project: Project) -> None:
    only_structure = np.full(project.read_image("scan-3").shape, UNANNOTATED, np.uint8)
    only_structure[5:8, 5:8, 5:8] = 1
    project.labels.save("scan-3", only_structure)
    events = list(train(project, make_config("supervised", **TINY)))
    started = next(event for event in events if isinstance(event, StartedEvent))
    assert started.labeled == 4
    warnings = [event.message for event in events if isinstance(event, WarningEvent)]
    assert any(
        "scan-3 is left out" in text and "mark a slice complete" in text for text in warnings
    )
    assert [run.n_labeled for run in read_training_history(project)] == [3]
