"""Descriptions of the phases of a run, the same in the window, the terminal and the log."""

from __future__ import annotations

from napari_dycon.project.runs.events import PhaseEvent, SemiSupervisedEvent

DICE = "Dice (networks only)"  # of validation; predictions may also use atlases
VALIDATION_DICE = f"validation {DICE}"


def describe_phase(event: PhaseEvent) -> str:
    """Describe what a run is doing, such as "Aligning scans 5 of 24"."""
    current = f"{min(event.done + 1, event.total)} of {event.total}"
    match event.phase:
        case "preparing":
            return f"Preparing scans {current}"
        case "aligning":
            return f"Aligning scans {current}" if event.total else "Aligning scans"
        case "validation":
            return f"Validating case {current}"
        case "preview":
            return "Updating preview"
        case "training":
            return "Training"
        case "finishing":
            return "Finishing"
    return "Starting training"


def describe_semi_supervised(event: SemiSupervisedEvent) -> str:
    """Explain why the loss rises."""
    return (
        f"Semi-supervised training from step {event.step} on: the losses of unlabeled scans are "
        "added, so that the loss rises at first."
    )
