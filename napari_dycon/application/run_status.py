"""Status of a run, derived from its events by a pure function."""

from __future__ import annotations

import dataclasses
from typing import Literal

from napari_dycon.project.runs.events import (
    Event,
    FailedEvent,
    FinishedEvent,
    PausedEvent,
    PreparingEvent,
    RegistrationEvent,
    ResumedEvent,
    StartedEvent,
    StepEvent,
    StoppedEvent,
)

RunPhase = Literal["idle", "starting", "preparing", "training", "paused", "stopping"]


@dataclasses.dataclass(frozen=True)
class RunStatus:
    """Status of the active run; ``remaining_s`` in seconds."""

    phase: RunPhase = "idle"
    run: str | None = None
    progress: float = 0.0
    remaining_s: float | None = None
    device: str = ""
    text: str = ""


def apply_event(status: RunStatus, event: Event) -> RunStatus:
    """Return the status after an event; unknown events change nothing."""
    match event:
        case StartedEvent():
            return dataclasses.replace(
                status,
                phase=_resolve_phase(status, "preparing"),
                device=event.device_reason,
                text="Reading scans",
            )
        case PreparingEvent():
            text = f"Preparing scan {event.done} of {event.total}"
            if event.done == event.total:
                text = "First training step (the slowest)"
            return dataclasses.replace(status, phase=_resolve_phase(status, "preparing"), text=text)
        case RegistrationEvent():
            text = f"Registering scans: {event.done} of {event.total}"
            return dataclasses.replace(status, phase=_resolve_phase(status, "preparing"), text=text)
        case StepEvent():
            return dataclasses.replace(
                status,
                phase=_resolve_phase(status, "training"),
                progress=event.progress,
                remaining_s=event.remaining_s,
                text=f"Step {event.step}, loss {_format_loss(event.loss)}",
            )
        case PausedEvent():
            return dataclasses.replace(status, phase="paused", text="Paused")
        case ResumedEvent():
            return dataclasses.replace(status, phase="training", text="Training")
        case FinishedEvent() | StoppedEvent() | FailedEvent():
            return RunStatus()
    return status


def _resolve_phase(status: RunStatus, phase: RunPhase) -> RunPhase:
    """Return the new phase; a stopping run keeps its phase until it has ended."""
    return "stopping" if status.phase == "stopping" else phase


def _format_loss(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.3f}"
