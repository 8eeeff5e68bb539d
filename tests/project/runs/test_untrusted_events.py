"""Untrusted lines of events."""

from __future__ import annotations

import json

import pytest

from napari_dycon.project.runs.event_lines import parse_event
from napari_dycon.project.store import Project


@pytest.mark.parametrize(
    "line",
    [
        b"", b"[]", b"3", b"{}", b"\xff", b"{" * 9999, b'{"event": 3}',
        b'{"event": "step", "step": "x"}',
        b'{"event": "step", "progress": 7}',
        b'{"event": "step", "parts": [1]}',
        b'{"event": "warning", "message": {}}',
        b'{"event": "finished", "elapsed": 1e999}',
        b'{"event": "step", "loss": true}',
        b'{"event": "' + b"x" * 300_000 + b'"}',
    ],
)  # fmt: skip
def test_lines_that_are_no_events_count_as_not_there(line: bytes) -> None:
    assert parse_event(line) is None


def test_events_have_all_that_a_window_asks_for(project: Project) -> None:
    from napari_dycon.application.run_status import RunStatus, apply_event
    from napari_dycon.application.training_history import read_training_history

    run = project.runs.create("dycon", {"method": "dycon"})
    kinds = ("started", "preparing", "warps", "step", "validation", "warning", "preview", "failed")
    status = RunStatus("starting", run.id)
    for kind in (*kinds, "finished", "stopped", "of tomorrow"):
        event = parse_event(json.dumps({"event": kind}).encode())
        assert event is not None
        status = apply_event(status, event)
        run.append_event({"event": kind})
    assert len(run.read_events()[0]) == 11
    assert [one.run for one in read_training_history(project)] == []


def test_of_endless_events_the_last_are_read(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = project.runs.create("dycon", {})
    for step in range(1000):
        run.append_event({"event": "step", "step": step})
    monkeypatch.setattr("napari_dycon.project.runs.run.MAX_EVENTS_BYTES", 500)
    events, offset = run.read_events()
    assert 5 < len(events) < 20
    assert events[-1]["step"] == 999
    assert offset == run.events_path.stat().st_size
    assert run.read_events(offset) == ([], offset)
