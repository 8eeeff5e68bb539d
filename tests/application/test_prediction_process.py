"""Events of prediction processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from napari_dycon.application import engine_process
from napari_dycon.application.engine_process import run_prediction
from napari_dycon.project.runs.events import FailedEvent, IdleEvent, PredictingEvent


def start_script(monkeypatch: pytest.MonkeyPatch, script: str) -> list[subprocess.Popen[bytes]]:
    """Replace the prediction process by a script; returns the started processes."""
    processes = []

    def launch(_: Sequence[str], output: Any, errors: Any, inputs: Any) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", script], stdin=inputs, stdout=output, stderr=errors
        )
        processes.append(process)
        return process

    monkeypatch.setattr(engine_process, "_launch", launch)
    return processes


def test_a_silent_prediction_can_be_abandoned_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    processes = start_script(monkeypatch, "import time; time.sleep(600)")
    events = run_prediction(tmp_path, "run", ["a"])
    assert isinstance(next(events), IdleEvent)
    events.close()  # type: ignore[attr-defined]
    assert processes[0].wait(timeout=60) != 0


def test_the_end_of_a_prediction_process_follows_its_events(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    line = PredictingEvent(case="a", done=0, total=1, remaining_s=None).model_dump_json()
    script = f"import sys; print({line!r}); sys.exit('The scan is missing.')"
    start_script(monkeypatch, script)
    events = [e for e in run_prediction(tmp_path, "run", ["a"]) if not isinstance(e, IdleEvent)]
    assert events[0] == PredictingEvent(case="a", done=0, total=1, remaining_s=None)
    assert events[1:] == [FailedEvent(message="The scan is missing.")]
