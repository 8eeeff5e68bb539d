"""Facts about runs come from the ends of their events, whatever is between or missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_dycon.project.runs import run_facts
from napari_dycon.project.runs.events import (
    CheckpointEvent,
    Event,
    FinishedEvent,
    StartedEvent,
    StepEvent,
    ValidationEvent,
)
from napari_dycon.project.runs.run import Run
from napari_dycon.project.runs.run_facts import read_run_facts

EVENTS: list[Event] = [
    StartedEvent(run="001-dycon", labeled=4, unlabeled=7, validation=1, time=1000.0),
    *(StepEvent(step=n, elapsed_s=float(n), time=1000.0 + n) for n in range(1, 400)),
    ValidationEvent(step=399, mean=0.7, time=1399.0),
    CheckpointEvent(step=399, time=1400.0),
]


def make_run(folder: Path, events: list[Event]) -> Run:
    run = Run(folder / "001-dycon")
    run.folder.mkdir()
    run.config_path.write_text('{"method": "dycon", "init_from": 5}')
    run.weights_path.touch()
    for event in events:
        run.append_event(event)
    return run


def test_only_the_ends_of_a_long_run_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, EVENTS)
    whole = read_run_facts(run)
    monkeypatch.setattr(run_facts, "TAIL_BYTES", 2000)
    assert read_run_facts(run) == whole
    assert (whole.labeled, whole.unlabeled, whole.validation) == (4, 7, 1)
    assert (whole.steps, whole.dice, whole.elapsed_s) == (399, 0.7, 399.0)
    assert (whole.started, whole.trained, whole.outcome) == (1000.0, 1400.0, "")
    assert whole.init_from is None
    assert whole.describe().startswith("399 steps, trained 1970-01-01")
    assert whole.describe().endswith("validation Dice (networks only) 0.700")


def test_steps_after_the_checkpoint_are_not_those_of_the_weights(tmp_path: Path) -> None:
    run = make_run(tmp_path, [*EVENTS, StepEvent(step=450, elapsed_s=450.0, time=1450.0)])
    facts = read_run_facts(run)
    assert (facts.steps, facts.steps_taken) == (399, 450)
    run.append_event(StartedEvent(run="001-dycon", labeled=4, resumed_from_step=399, time=2000.0))
    run.append_event(FinishedEvent(step=500, elapsed_s=500.0, time=2100.0))
    facts = read_run_facts(run)
    assert (facts.steps, facts.outcome, facts.started) == (500, "finished", 1000.0)


def test_a_run_without_files(tmp_path: Path) -> None:
    run = Run(tmp_path / "001-dycon")
    facts = read_run_facts(run)
    assert (facts.steps, facts.outcome, facts.dice, facts.started) == (0, "", None, None)
    assert facts.describe() == "0 steps, no validation Dice"
