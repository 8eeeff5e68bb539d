"""The demo without a window: masks, maps and a report from synthetic scans."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_dycon.cli import console
from napari_dycon.cli.demo import show_demo
from napari_dycon.demo import run as demo
from napari_dycon.errors import UserError
from napari_dycon.project.runs.events import Event, PredictingEvent, StepEvent


def test_the_demo_runs_without_a_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "N_CASES", 8)  # two of them without a label
    said: list[Event] = []
    demo.run_headless(tmp_path / "out", steps=1, on_event=said.append)
    results = sorted(p.name for p in (tmp_path / "out" / "results").iterdir())
    assert results == [
        f"case-0{number}{kind}.nii.gz"
        for number in (7, 8)
        for kind in ("", "_disagreement", "_uncertainty")
    ]
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "| case-07 | organ" in text
    assert "Of 8 synthetic scans, 4 were labeled for training" in text
    kinds = [event.event for event in said]
    assert kinds.index("started") < kinds.index("finished") < kinds.index("predicted")
    assert 0 <= said[-1].mean_dice <= 1
    with pytest.raises(UserError, match="already contains a demo"):
        demo.run_headless(tmp_path / "out", steps=1, on_event=said.append)


def test_without_a_terminal_the_demo_reports_progress_periodically(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "STATUS_INTERVAL_S", -1.0)
    with show_demo(False) as show:
        show(StepEvent(step=7, progress=0.25))
        show(PredictingEvent(case="case-07", done=1, total=4))
    reported = capsys.readouterr().err
    assert "Training, step 7, 25%" in reported
    assert "Predicting case-07, 25%" in reported
