"""The command ``predict`` says what it does from the start, in phases and plain words."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.tiny_runs import TINY

from napari_dycon.cli import prediction_display
from napari_dycon.cli.prediction_display import show_predictions
from napari_dycon.core.durations import format_elapsed, format_remaining
from napari_dycon.core.wording import (
    format_count,
    format_volume,
)
from napari_dycon.engine.config import make_config
from napari_dycon.engine.inference.progress import PredictionProgress
from napari_dycon.engine.training.run import train
from napari_dycon.project.runs.events import PredictedEvent, TemplatesEvent, parse_event
from napari_dycon.project.store import Project


def test_status_lines_are_in_plain_words(capsys: pytest.CaptureFixture[str]) -> None:
    progress = PredictionProgress(8)
    with show_predictions(progress, as_json=False) as show:
        show(TemplatesEvent(case="x", done=1, total=8))
        show(PredictedEvent(case="a", done=2, total=8))
    err = capsys.readouterr().err
    assert "Reference scan 1 of 8 ready" in err
    assert "Predicted a (2 of 8)" in err


def test_progress_is_reported_within_a_long_computation(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_display, "INTERVAL_S", 0.05)
    progress = PredictionProgress(1)
    progress.plan("predicting", passes=1)
    with show_predictions(progress, as_json=True):
        progress.start("a", "predicting")
        with progress.measure("passes", 1):
            progress.report_fraction(0.5)
            time.sleep(0.5)
    events = [parse_event(line.encode()) for line in capsys.readouterr().out.splitlines()]
    assert len(events) >= 3
    assert {event.event for event in events if event} == {"prediction_progress"}
    assert events[-1] is not None
    assert (events[-1]["phase"], events[-1]["case"]) == ("predicting", "a")
    assert events[-1]["remaining_s"] > 0


def test_the_first_line_comes_before_the_network_is_loaded(project: Project) -> None:
    list(train(project, make_config("supervised", **(TINY | {"steps": 1, "atlas.weight": 0.0}))))
    command = [sys.executable, "-X", "importtime", "-m", "napari_dycon", "predict"]
    command += [str(project.path), "--cases", "scan-4"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    lines = done.stderr.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("Predicting"))
    assert lines[first] == "Predicting 1 case with run 001-supervised"
    assert not any(line.endswith(" torch") for line in lines[:first])
    assert any(line.endswith(" torch") for line in lines[first:])
    assert done.stdout.startswith("1 prediction of run 001-supervised in ")


def test_a_prediction_ends_with_its_input(project: Project, tmp_path: Path) -> None:
    list(train(project, make_config("supervised", **(TINY | {"steps": 1, "atlas.weight": 0.0}))))
    command = [sys.executable, "-m", "napari_dycon", "predict", str(project.path)]
    command += ["--json", "--end-with-input"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False, timeout=60)
    assert done.returncode == 130
    assert list(project.path.rglob(".*.tmp.*")) == []


@pytest.mark.parametrize(
    ("seconds", "passed", "left"),
    [
        (0.4, "0 s", "a few seconds left"),
        (42, "42 s", "about 40 s left"),
        (90, "1 min 30 s", "about 1½ min left"),
        (100, "1 min 40 s", "about 1½ min left"),
        (110, "1 min 50 s", "about 2 min left"),
        (284, "4 min 44 s", "about 4½ min left"),
        (285, "4 min 45 s", "about 5 min left"),
        (361, "6 min 1 s", "about 6 min left"),
        (3600, "1 h", "about 1 h left"),
        (3890, "1 h 5 min", "about 1 h 5 min left"),
        (3570, "59 min 30 s", "about 1 h left"),
    ],
)
def test_durations_in_words(seconds: float, passed: str, left: str) -> None:
    assert format_elapsed(seconds) == passed
    assert format_remaining(seconds) == left


def test_counts_and_volumes_in_words() -> None:
    assert [format_count(n, "case") for n in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]
    volumes = (1.25, 65.2, 99.6, 310.0, 997.0, 3100.0)
    expected = ["1.2 mm³", "65 mm³", "0.10 ml", "0.31 ml", "1.0 ml", "3.1 ml"]
    assert [format_volume(volume) for volume in volumes] == expected
