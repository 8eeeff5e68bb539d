"""Events that report the progress of runs and predictions.

An event is a small model. In ``events.jsonl`` and on standard output it is a line with one JSON
object: ``event`` is its kind, ``time`` is present in the events of a run. ``format_event`` writes
such a line and ``parse_event`` reads one, within limits: a project can come from anywhere, and a
crash can leave half a line.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from napari_dycon.core.untrusted import parse_json
from napari_dycon.project.runs.base_event import MAX_NUMBER, MAX_TEXT_LENGTH, BaseEvent, Text
from napari_dycon.project.runs.prediction_events import (
    DemoEvent,
    IdleEvent,
    PredictedEvent,
    PredictingEvent,
    PredictionCanceledEvent,
    PredictionFinishedEvent,
    PredictionProgressEvent,
    PredictionStartedEvent,
    PredictionSummaryEvent,
    PreliminaryEvent,
    SkippedEvent,
    TemplatesEvent,
)
from napari_dycon.project.runs.training_events import (
    CalibratedEvent,
    CheckpointEvent,
    FailedEvent,
    FinishedEvent,
    PausedEvent,
    Phase,
    PhaseEvent,
    PreparingEvent,
    PreviewEvent,
    RegistrationEvent,
    ResumedEvent,
    SemiSupervisedEvent,
    StartedEvent,
    StepEvent,
    StoppedEvent,
    ValidationEvent,
    WarningEvent,
)

__all__ = [
    "EVENT_TYPES",
    "KINDS",
    "MAX_LINE_BYTES",
    "MAX_NUMBER",
    "MAX_TEXT_LENGTH",
    "BaseEvent",
    "CalibratedEvent",
    "CheckpointEvent",
    "DemoEvent",
    "Event",
    "FailedEvent",
    "FinalEvent",
    "FinishedEvent",
    "IdleEvent",
    "KnownEvent",
    "PausedEvent",
    "Phase",
    "PhaseEvent",
    "PredictedEvent",
    "PredictingEvent",
    "PredictionCanceledEvent",
    "PredictionFinishedEvent",
    "PredictionProgressEvent",
    "PredictionStartedEvent",
    "PredictionSummaryEvent",
    "PreliminaryEvent",
    "PreparingEvent",
    "PreviewEvent",
    "RegistrationEvent",
    "ResumedEvent",
    "SemiSupervisedEvent",
    "SkippedEvent",
    "StartedEvent",
    "StepEvent",
    "StoppedEvent",
    "TemplatesEvent",
    "UnknownEvent",
    "ValidationEvent",
    "WarningEvent",
    "format_event",
    "parse_event",
]

MAX_LINE_BYTES = 2**18


class UnknownEvent(BaseEvent):
    """An event of a kind that a newer version writes, with all of its keys."""

    model_config = ConfigDict(extra="allow")

    event: Text


KnownEvent = Annotated[
    StartedEvent
    | PhaseEvent
    | PreparingEvent
    | RegistrationEvent
    | StepEvent
    | SemiSupervisedEvent
    | ValidationEvent
    | PreviewEvent
    | CheckpointEvent
    | WarningEvent
    | PausedEvent
    | ResumedEvent
    | CalibratedEvent
    | FinishedEvent
    | StoppedEvent
    | FailedEvent
    | PredictionStartedEvent
    | PredictingEvent
    | TemplatesEvent
    | PredictedEvent
    | SkippedEvent
    | PredictionFinishedEvent
    | DemoEvent
    | IdleEvent
    | PredictionProgressEvent
    | PredictionSummaryEvent
    | PreliminaryEvent
    | PredictionCanceledEvent,
    Field(discriminator="event"),
]
Event = KnownEvent | UnknownEvent
EVENT_TYPES: tuple[type[BaseEvent], ...] = get_args(get_args(KnownEvent)[0])
KINDS = frozenset(str(one.model_fields["event"].default) for one in EVENT_TYPES)
# The last event of a run; for ``isinstance``.
FinalEvent = FinishedEvent | StoppedEvent | FailedEvent
_KNOWN_EVENT: TypeAdapter[KnownEvent] = TypeAdapter(KnownEvent)


def format_event(event: Event) -> str:
    """Return the line of an event, without a newline; fields that were not set are left out."""
    values: dict[str, Any] = {
        "event": event.event,
        **event.model_dump(mode="json", exclude_unset=True),
    }
    return json.dumps(values, ensure_ascii=False)


def parse_event(line: bytes) -> Event | None:
    """Return the event of a line; ``None`` if it is no event, or one beyond the limits."""
    if len(line) > MAX_LINE_BYTES:
        return None
    try:
        values = parse_json(line)
        if not isinstance(values, dict):
            return None
        kind = values.get("event")
        if isinstance(kind, str) and kind in KINDS:
            return _KNOWN_EVENT.validate_python(values)
        return UnknownEvent.model_validate(values)
    except (ValueError, ValidationError):
        return None
