"""What the terminal says during a run."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from napari_dycon.cli import console, training_display
from napari_dycon.cli.training_display import TrainingDisplay, show_training
from napari_dycon.project.runs.events import (
    Event,
    FinishedEvent,
    PausedEvent,
    PhaseEvent,
    StartedEvent,
    StepEvent,
    ValidationEvent,
)
from napari_dycon.project.runs.phase_text import describe_phase
from napari_dycon.project.store import Project

Run = Callable[..., tuple[int, str, str]]
EVENTS: list[Event] = [
    StartedEvent(run="001-dycon"),
    PhaseEvent(phase="preparing", done=3, total=11, remaining_s=238.0),
    PhaseEvent(phase="aligning", done=4, total=24, remaining_s=220.0),
    PhaseEvent(phase="training", remaining_s=180.0),
    StepEvent(step=7, loss=1.25, progress=0.2, remaining_s=170.0),
    PhaseEvent(phase="preview", total=1, remaining_s=150.0),
    PhaseEvent(phase="validation", done=0, total=2, remaining_s=20.0),
    PausedEvent(step=7),
    ValidationEvent(step=7),
    PhaseEvent(phase="finishing", remaining_s=2.0),
    FinishedEvent(step=7, elapsed_s=240.0),
]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_phases_have_names() -> None:
    found = [describe_phase(event) for event in EVENTS if isinstance(event, PhaseEvent)]
    assert found == [
        "Preparing scans 4 of 11", "Aligning scans 5 of 24", "Training", "Updating preview",
        "Validating case 1 of 2", "Finishing",
    ]  # fmt: skip
    assert describe_phase(PhaseEvent(phase="aligning", done=24, total=24)) == (
        "Aligning scans 24 of 24"
    )
    assert describe_phase(PhaseEvent()) == "Starting training"


def test_lines_say_each_phase_and_the_time_left(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    def events() -> Iterator[Event]:
        for event in EVENTS:
            clock[0] += 2.0
            yield event

    show_training(events(), as_json=False)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Starting training"
    for text in (
        "Preparing scans 4 of 11, 4 min left", "Aligning scans 5 of 24, 4 min left",
        "Training, 3 min left", "Updating preview, 2 min left",
        "Validating case 1 of 2, 20 s left", "Paused",
        "Validation at step 7: no case could be evaluated", "Finishing, 2 s left",
    ):  # fmt: skip
        assert text in lines


def test_lines_are_rarer_in_long_runs_but_not_in_short_ones(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    def events(seconds: int) -> Iterator[Event]:
        for step in range(seconds):
            clock[0] += 1.0
            yield StepEvent(step=step, loss=1.0, remaining_s=9.0)

    show_training(events(60), as_json=False)
    assert 9 <= len(capsys.readouterr().err.splitlines()) <= 13
    show_training(events(7200), as_json=False)
    assert len(capsys.readouterr().err.splitlines()) < 300


def test_the_bar_counts_down_between_events(
    monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    terminal = Console(force_terminal=True, width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    monkeypatch.setattr(training_display, "stderr_console", terminal)
    monkeypatch.setattr(console, "stderr_console", terminal)
    monkeypatch.setattr(training_display, "is_interactive", lambda: True)

    def render() -> str:
        with terminal.capture() as captured:
            terminal.print(display.progress.get_renderable())
        return re.sub(r"\x1b\[[\d;]*m", "", captured.get())

    display = TrainingDisplay()
    clock[0] += 5.0
    assert "Starting training" in render()
    assert "%" not in render()
    display.show(PhaseEvent(phase="aligning", done=4, total=24, remaining_s=40.0))
    assert "Aligning scans 5 of 24" in render()
    assert "40 s left" in render()
    clock[0] += 7.0  # while a long step is taken
    assert "33 s left" in render()


def test_a_number_without_a_unit_is_no_time_limit(run: Run, scans: Path, tmp_path: Path) -> None:
    project = tmp_path / "p"
    run("new", project, "--images", scans / "images", "--labels", scans / "labels")
    code, _, err = run("train", project, "--time-limit", "5")
    assert code == 2
    assert "Write the unit: 5s, 5m or 5h" in err
    assert not (project / "runs").exists()


def test_a_time_limit_with_a_space_is_accepted(run: Run, scans: Path, tmp_path: Path) -> None:
    project = tmp_path / "p"
    run("new", project, "--images", scans / "images", "--labels", scans / "labels")
    code, _, err = run("train", project, "--time-limit", "0.1 min", "--device", "cpu")
    assert "Finished at step" in err  # how many steps depends on the load
    assert code == (1 if "Finished at step 0" in err else 0)
    assert find_value(Project.open(project).runs.list()[-1].read_config(), "time_limit") == 6.0


def find_value(settings: Any, name: str) -> Any:
    """Find a setting in the nested groups of a configuration."""
    if not isinstance(settings, dict):
        return None
    if name in settings:
        return settings[name]
    return next((v for g in settings.values() if (v := find_value(g, name)) is not None), None)
