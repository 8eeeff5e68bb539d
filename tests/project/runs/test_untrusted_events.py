"""Untrusted lines of events."""

from __future__ import annotations

import json

import pytest

from napari_dycon.project.runs.events import KINDS, StepEvent, UnknownEvent, parse_event
from napari_dycon.project.store import Project


@pytest.mark.parametrize(
    "line",
    [
        b"", b"[]", b"3", b"{}", b"\xff", b"{" * 9999, b'{"event": 3}',
        b'{"event": "step", "step": "x"}',
        b'{"event": "step", "progress": 7}',
        b'{"event": "step", "loss_terms": [1]}',
        b'{"event": "warning", "message": {}}',
        b'{"event": "finished", "elapsed_s": 1e999}',
        b'{"event": "finished", "elapsed_s": 1e13}',
        b'{"event": "started", "run": "' + b"x" * 5000 + b'"}',
        b'{"event": "step", "step": -1}',
        b'{"event": "step", "step": 1, "step": 2}',
        b'{"event": "step", "loss": true}',
        b'{"event": "' + b"x" * 300_000 + b'"}',
    ],
)  # fmt: skip
def test_invalid_event_lines_are_ignored(line: bytes) -> None:
    assert parse_event(line) is None


def test_events_with_missing_fields_are_ignored(project: Project) -> None:
    from napari_dycon.application.training.history import read_training_history
    from napari_dycon.application.training.status import RunStatus, apply_event

    run = project.runs.create("dycon", {"method": "dycon"})
    status = RunStatus("starting", run.id)
    for kind in (*sorted(KINDS), "of tomorrow"):
        event = parse_event(json.dumps({"event": kind, "key of tomorrow": [1]}).encode())
        assert event is not None
        assert event.event == kind
        assert isinstance(event, UnknownEvent) == (kind == "of tomorrow")
        status = apply_event(status, event)
        run.append_event(event)
    assert [event.event for event in run.read_events()[0]] == [*sorted(KINDS), "of tomorrow"]
    assert [one.run for one in read_training_history(project)] == []


def test_only_the_last_events_of_a_huge_file_are_read(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = project.runs.create("dycon", {})
    for step in range(1000):
        run.append_event(StepEvent(step=step))
    monkeypatch.setattr("napari_dycon.project.runs.run.MAX_EVENTS_BYTES", 500)
    events, offset = run.read_events()
    assert 5 < len(events) < 20
    assert events[-1].step == 999
    assert offset == run.events_path.stat().st_size
    assert run.read_events(offset) == ([], offset)
