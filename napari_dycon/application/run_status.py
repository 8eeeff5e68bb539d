"""Status of a run, derived from its events by a pure function."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from napari_dycon.application.engine_process import FINAL_EVENTS

Event = dict[str, Any]
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
    kind = event.get("event")
    if kind == "started":
        status = dataclasses.replace(
            status,
            phase=_resolve_phase(status, "preparing"),
            device=event["device_reason"],
            text="Reading scans",
        )
    elif kind == "preparing":
        text = f"Preparing scan {event['done']} of {event['total']}"
        if event["done"] == event["total"]:
            text = "First training step (the slowest)"
        status = dataclasses.replace(status, phase=_resolve_phase(status, "preparing"), text=text)
    elif kind == "warps":
        text = f"Registering scans: {event['done']} of {event['total']}"
        status = dataclasses.replace(status, phase=_resolve_phase(status, "preparing"), text=text)
    elif kind == "step":
        status = dataclasses.replace(
            status,
            phase=_resolve_phase(status, "training"),
            progress=float(event["progress"]),
            remaining_s=event["remaining"],
            text=f"Step {event['step']}, loss {_format_loss(event['loss'])}",
        )
    elif kind == "paused":
        status = dataclasses.replace(status, phase="paused", text="Paused")
    elif kind == "resumed":
        status = dataclasses.replace(status, phase="training", text="Training")
    elif kind in FINAL_EVENTS:
        status = RunStatus()
    return status


def _resolve_phase(status: RunStatus, phase: RunPhase) -> RunPhase:
    """A stopping run keeps that phase until it has ended."""
    return "stopping" if status.phase == "stopping" else phase


def _format_loss(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.3f}"
