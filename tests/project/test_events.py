"""Events and their lines in ``events.jsonl`` and on standard output."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from napari_dycon.errors import ProjectError
from napari_dycon.project.runs.event_log import EventLog
from napari_dycon.project.runs.events import (
    EVENT_TYPES,
    MAX_TEXT_LENGTH,
    BaseEvent,
    FinishedEvent,
    StepEvent,
    UnknownEvent,
    WarningEvent,
    format_event,
    parse_event,
)
from napari_dycon.project.runs.metadata import RunControl, RunMetrics
from napari_dycon.project.runs.run import Run


@pytest.mark.parametrize("model", EVENT_TYPES)
def test_every_event_and_field_is_described(model: type[BaseEvent]) -> None:
    assert inspect.cleandoc(model.__doc__ or "").endswith(".")
    for name, field in model.model_fields.items():
        assert name == "event" or field.description, name


@pytest.mark.parametrize("model", EVENT_TYPES)
def test_an_event_survives_serialization(model: Any) -> None:
    event = model(time=1.5)
    assert parse_event(format_event(event).encode()) == event


def test_a_line_starts_with_the_kind_and_contains_only_set_fields() -> None:
    event = StepEvent(step=3, loss=None, loss_terms={"supervised": 0.25})
    line = '{"event": "step", "step": 3, "loss": null, "loss_terms": {"supervised": 0.25}}'
    assert format_event(event) == line


def test_events_of_newer_versions_keep_their_keys() -> None:
    line = b'{"event": "of tomorrow", "time": 1.0, "key": [1]}'
    event = parse_event(line)
    assert isinstance(event, UnknownEvent)
    assert json.loads(format_event(event)) == json.loads(line)
    known = parse_event(b'{"event": "step", "step": 2, "key of tomorrow": [1]}')
    assert isinstance(known, StepEvent)
    assert known.step == 2


def test_any_error_message_fits_into_an_event() -> None:
    event = WarningEvent(message="folder-\udcff " * MAX_TEXT_LENGTH)
    assert len(event.message) == MAX_TEXT_LENGTH
    assert event.message.startswith(r"folder-\udcff ")
    assert parse_event(format_event(event).encode("utf-8")) == event


def test_an_event_rejects_values_that_cannot_be_serialized() -> None:
    with pytest.raises(ValidationError):
        StepEvent(step=-1)
    with pytest.raises(ValidationError):
        StepEvent(loss=float("nan"))


def test_on_a_full_disk_only_step_events_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_dycon.project.runs.event_log.MAX_PENDING_EVENTS", 3)
    run = Run(tmp_path / "away")
    log = EventLog(run)
    for event in (StepEvent(step=1), WarningEvent(message="a"), StepEvent(step=2)):
        log.write(event)
    log.write(WarningEvent(message="b"))  # one too many: the steps go
    run.folder.mkdir()
    log.write(FinishedEvent(step=2))
    assert [event.event for event in run.read_events()[0]] == ["warning", "warning", "finished"]


def test_metrics_and_control_survive_a_round_trip(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.read_metrics() == RunMetrics()
    metrics = RunMetrics(step=3, elapsed_s=1.5, skipped=0, dice=0.5, labeled=["a"])
    run.write_metrics(metrics)
    assert run.read_metrics() == metrics
    run.write_control(command="stop")
    run.write_control(preview="scan-1")
    assert run.read_control() == RunControl(command="stop", preview="scan-1")


def test_an_invalid_control_file_requests_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.control_path.write_text('{"command": "explode", "preview": ["a"], "key": 1}')
    assert run.read_control() == RunControl()
    run.control_path.write_text("{")
    with pytest.raises(ProjectError, match="cannot be read"):
        run.read_control()


def test_fields_are_also_items() -> None:
    event: Any = StepEvent(step=3, loss=0.5)
    assert (event["event"], event["step"], event["loss"]) == ("step", 3, 0.5)
    assert event.get("message", "none") == "none"
    assert "step" in event
    assert "message" not in event
    with pytest.raises(KeyError):
        event["message"]
    unknown: Any = parse_event(b'{"event": "of tomorrow", "copy": 1}')
    assert unknown["copy"] == 1
    assert "copy" in unknown
