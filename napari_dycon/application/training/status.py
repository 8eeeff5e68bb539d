"""Status of a run, derived from its events by a pure function.

All texts about a running training come from here: the row below the tabs, the *Train* tab and the
activity dock show the same.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from napari_dycon.core.durations import format_elapsed, format_remaining
from napari_dycon.core.wording import format_count
from napari_dycon.project.runs.events import (
    Event,
    FailedEvent,
    FinishedEvent,
    PausedEvent,
    PhaseEvent,
    PreparingEvent,
    RegistrationEvent,
    ResumedEvent,
    StartedEvent,
    StepEvent,
    StoppedEvent,
    ValidationEvent,
)
from napari_dycon.project.runs.phase_text import describe_phase

RunPhase = Literal["idle", "starting", "preparing", "training", "pausing", "paused", "stopping"]
NEXT_TEXT = "Next: predict cases in the Review tab."
FIRST_STEP_TEXT = "First training step (this is the slowest)"
PAUSING_TEXT, STOPPING_TEXT = "Pausing…", "Stopping…"


@dataclasses.dataclass(frozen=True)
class RunStatus:
    """Status of the active run.

    Attributes
    ----------
    progress : from 0 to 1
    remaining_s : estimated remaining time in seconds
    device, device_details : where it trains, in plain words and as torch describes it
    text : what the run is doing
    details : numbers that only researchers need
    dice : newest mean Dice on the ``n_validation`` validation cases
    """

    phase: RunPhase = "idle"
    run: str | None = None
    progress: float = 0.0
    remaining_s: float | None = None
    device: str = ""
    device_details: str = ""
    text: str = ""
    details: str = ""
    dice: float | None = None
    n_validation: int = 0

    @property
    def summary(self) -> str:
        """What the run is doing and how long it still takes."""
        is_timed = self.phase in ("preparing", "training", "stopping")
        remaining = format_remaining(self.remaining_s) if is_timed else ""
        return f"{self.text}, {remaining}" if remaining else self.text

    @property
    def score(self) -> str:
        """The newest Dice in words; empty before the first validation."""
        return "" if self.dice is None else describe_dice(self.dice, self.n_validation)


def starting_text(run_id: str) -> str:
    """Describe the start of a run by its number."""
    return f"Starting training (run {run_id.partition('-')[0]})"


def describe_dice(dice: float, n_cases: int) -> str:
    """Describe a validation Dice, of the networks without atlases, and the number of cases."""
    cases = f"{n_cases} validation cases" if n_cases > 1 else "the validation case"
    return f"Network Dice on {cases}: {dice:.2f}"


def describe_outcome(event: FinishedEvent | StoppedEvent, n_validation: int) -> str:
    """Describe how a training ended: "Training finished: 120 steps in 3 min. Dice on …: 0.40."."""
    ending = "finished" if isinstance(event, FinishedEvent) else "stopped"
    steps = format_count(event.step, "step")
    text = f"Training {ending}: {steps} in {format_elapsed(event.elapsed_s)}."
    if event.dice is not None:
        text += f" {describe_dice(event.dice, n_validation)}."
    return text


def describe_device(device: str, reason: str) -> str:
    """Describe in plain words where a run trains.

    Parameters
    ----------
    device : type of the device: cuda, mps or cpu
    reason : why it was chosen, as torch describes it
    """
    if device == "cpu":
        if "as chosen" in reason:
            why = "as chosen"
        elif "without CUDA" in reason:
            why = "no GPU support installed"
        else:
            why = "no GPU found"
        return f"Running on the processor ({why}) – slower"
    name = reason.removeprefix("GPU: ")
    return f"Running on the GPU ({name})" if name else "Running on the GPU"


def apply_event(status: RunStatus, event: Event) -> RunStatus:
    """Return the status after an event; unknown events change nothing."""
    match event:
        case StartedEvent():
            started = dataclasses.replace(
                status,
                device=describe_device(event.device, event.device_reason),
                device_details=f"{event.device_reason}; {event.precision}".strip("; "),
                n_validation=event.validation,
            )
            return _show_work(started, "preparing", "Reading scans")
        case PreparingEvent():
            is_last = event.done == event.total
            text = f"Preparing scans {event.done} of {event.total}"
            return _show_work(status, "preparing", FIRST_STEP_TEXT if is_last else text)
        case RegistrationEvent():
            text = f"Aligning scans {event.done} of {event.total}"
            if event.done == event.total:
                text = FIRST_STEP_TEXT
            return _show_work(status, "preparing", text)
        case PhaseEvent():
            return _apply_phase(status, event)
        case StepEvent():
            stepped = dataclasses.replace(
                status,
                progress=event.progress,
                remaining_s=None if status.phase == "stopping" else event.remaining_s,
                details=f"Step {event.step}, loss {_format_loss(event.loss)}",
            )
            return _show_work(stepped, "training", "Training")
        case ValidationEvent(mean=float(mean)):
            return dataclasses.replace(status, dice=mean)
        case PausedEvent() if status.phase != "stopping":
            return dataclasses.replace(status, phase="paused", text="Paused")
        case ResumedEvent() if status.phase != "stopping":
            return dataclasses.replace(status, phase="training", text="Training")
        case FinishedEvent() | StoppedEvent() | FailedEvent():
            return RunStatus()
    return status


def _apply_phase(status: RunStatus, event: PhaseEvent) -> RunStatus:
    """Return the status in a phase of the run."""
    is_ending = event.phase in ("validation", "finishing")
    # What was planned does not say how long stopping takes.
    is_timed = is_ending or status.phase != "stopping"
    status = dataclasses.replace(status, remaining_s=event.remaining_s if is_timed else None)
    text = describe_phase(event)
    match event.phase:
        case "starting":
            return status
        case "preparing" | "aligning":
            return _show_work(status, "preparing", text)
        case "training":
            return _show_work(status, "training", text if status.details else FIRST_STEP_TEXT)
        case "validation":
            return _show_ending(status, text)
        case "finishing":
            return _show_ending(status, f"{text}: saving the model")
    return _show_work(status, "training", text)


def _show_ending(status: RunStatus, text: str) -> RunStatus:
    """Return the status with work that a stopping run does, too."""
    if status.phase == "stopping":
        return dataclasses.replace(status, text=text)
    return _show_work(status, "training", text)


def _show_work(status: RunStatus, phase: RunPhase, text: str) -> RunStatus:
    """Return the status with new work; a command that was just given stays visible."""
    if status.phase in ("pausing", "stopping"):
        return status
    return dataclasses.replace(status, phase=phase, text=text)


def _format_loss(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.3f}"
