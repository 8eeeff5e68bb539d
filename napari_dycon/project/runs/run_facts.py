"""How a run was trained, read from its events and metrics without reading all of a long run."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

from napari_dycon.core.wording import format_count
from napari_dycon.errors import ProjectError
from napari_dycon.project.runs.events import (
    MAX_LINE_BYTES,
    CheckpointEvent,
    Event,
    FailedEvent,
    FinishedEvent,
    StartedEvent,
    StepEvent,
    StoppedEvent,
    ValidationEvent,
    parse_event,
)
from napari_dycon.project.runs.phase_text import VALIDATION_DICE
from napari_dycon.project.runs.run import Run, merge_resumed_events

TAIL_BYTES = 2**20  # end of the events, which holds the last checkpoint and validation


@dataclass(frozen=True)
class RunFacts:
    """How a run was trained; ``None`` where it is unknown.

    Attributes
    ----------
    outcome : "finished", "stopped", "failed", or "" without an end
    started, trained : when the run began and when its weights were saved, seconds since the epoch
    steps : steps of the saved weights; 0 without weights
    steps_taken : steps of the run, also of those after the last checkpoint
    dice : newest mean Dice on the validation cases, of the networks only
    """

    run: str
    method: str
    outcome: str
    has_weights: bool
    started: float | None
    trained: float | None
    steps: int
    steps_taken: int
    elapsed_s: float | None
    labeled: int | None
    unlabeled: int | None
    validation: int | None
    dice: float | None
    init_from: str | None

    def describe(self) -> str:
        """Describe the weights: "363 steps, trained 2026-11-28 20:18, validation Dice … 0.790"."""
        parts = [format_count(self.steps, "step")]
        if self.trained is not None:
            parts.append(f"trained {format_time(self.trained)}")
        parts.append(
            f"no {VALIDATION_DICE.partition(' (')[0]}"
            if self.dice is None
            else f"{VALIDATION_DICE} {self.dice:.3f}"
        )
        return ", ".join(parts)


def read_run_facts(run: Run) -> RunFacts:
    """Read how a run was trained; invalid and missing files count as unknown."""
    events = _read_ends(run)
    metrics = run.read_metrics()
    config: dict[str, object] = {}
    with contextlib.suppress(ProjectError):
        config = run.read_config()
    first = next((event for event in events if isinstance(event, StartedEvent)), None)
    dice, elapsed_s, steps, outcome = metrics.dice, metrics.elapsed_s, metrics.step or 0, ""
    trained: float | None = None
    taken = steps
    for event in events:
        match event:
            case StartedEvent():
                outcome = ""
            case StepEvent():
                elapsed_s, taken = event.elapsed_s, event.step
            case ValidationEvent():
                dice = event.mean
            case CheckpointEvent():
                steps, trained = event.step, event.time
            case FinishedEvent() | StoppedEvent():
                outcome, steps, elapsed_s = event.event, event.step, event.elapsed_s
            case FailedEvent():
                outcome = event.event
    labeled = first.labeled if first else None
    init_from = config.get("init_from")
    return RunFacts(
        run.id,
        str(config.get("method", "")),
        outcome,
        run.has_weights,
        first.time if first else None,
        trained,
        steps if run.has_weights else 0,
        max(steps, taken),
        elapsed_s,
        labeled if metrics.labeled is None else len(metrics.labeled),
        first.unlabeled if first else metrics.unlabeled,
        first.validation if first else None,
        dice,
        init_from if isinstance(init_from, str) else None,
    )


def _read_ends(run: Run) -> list[Event]:
    """Read the first event of a run and those at its end."""
    first: Event | None = None
    try:
        if not run.events_path.is_file():
            return []
        size = run.events_path.stat().st_size
        with run.events_path.open("rb") as file:
            first = parse_event(file.readline(MAX_LINE_BYTES))
    except OSError:
        return []
    offset = max(size - TAIL_BYTES, 0)
    tail = run.read_events(offset)[0]
    return merge_resumed_events([first, *tail] if offset and first else tail)


def format_time(seconds: float) -> str:
    """Format a time in seconds since the epoch in local time: "2026-11-28 20:18"."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
