"""A run tells when unlabeled scans join, which makes its loss rise."""

from __future__ import annotations

import pytest
from helpers.tiny_runs import TINY

from napari_dycon.cli.training_display import show_training
from napari_dycon.engine.config import make_config
from napari_dycon.engine.training.run import train
from napari_dycon.project.runs.events import SemiSupervisedEvent, StepEvent
from napari_dycon.project.store import Project


def test_the_event_comes_with_the_first_step_on_unlabeled_scans(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("napari_dycon.engine.training.step_events.STEP_EVENT_INTERVAL_S", 0.0)
    settings = {**TINY, "steps": 6, "semi_supervised.start": 0.5}
    events = list(train(project, make_config("dycon", "default", settings)))
    (joined,) = [event for event in events if isinstance(event, SemiSupervisedEvent)]
    assert joined.step == 4
    terms = {e.step: set(e.loss_terms) for e in events if isinstance(e, StepEvent)}
    assert terms[3] == {"supervised"}
    assert terms[4] > {"supervised"}
    log = project.runs.get().log_path.read_text(encoding="utf-8")
    assert "Semi-supervised training from step 4 on: the losses of unlabeled scans are added" in log
    show_training(iter(events), as_json=False)
    assert (
        "Semi-supervised training from step 4 on: the losses of unlabeled scans are added"
        in capsys.readouterr().err
    )


def test_a_supervised_run_has_none(project: Project) -> None:
    settings = {**TINY, "steps": 2, "semi_supervised.start": 0.0}
    events = list(train(project, make_config("supervised", "default", settings)))
    assert not any(isinstance(event, SemiSupervisedEvent) for event in events)
