"""Texts about a running training: in plain words, from one place, at once after a click."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from napari_dycon.application.training.status import (
    FIRST_STEP_TEXT,
    RunStatus,
    apply_event,
    describe_device,
    describe_dice,
    starting_text,
)
from napari_dycon.project.runs.events import (
    Event,
    FinishedEvent,
    PausedEvent,
    Phase,
    PhaseEvent,
    PreparingEvent,
    RegistrationEvent,
    ResumedEvent,
    StartedEvent,
    StepEvent,
    ValidationEvent,
)

CPU_REASON = "CPU: torch 2.13.0+cpu was installed without CUDA support"


def follow(*events: Event, status: RunStatus | None = None) -> RunStatus:
    start = status or RunStatus("starting", "001-dycon", text=starting_text("001-dycon"))
    return functools.reduce(apply_event, events, start)


def phase(name: Phase, **values: Any) -> PhaseEvent:
    return PhaseEvent(phase=name, **values)


def test_each_part_of_a_run_has_a_text() -> None:
    assert follow().summary == "Starting training (run 001)"
    started = StartedEvent(run="001-dycon", device="cpu", device_reason=CPU_REASON, validation=1)
    assert follow(started).summary == "Reading scans"
    assert follow(started, PreparingEvent(done=3, total=12)).summary == "Preparing scans 3 of 12"
    assert follow(RegistrationEvent(done=5, total=24)).summary == "Aligning scans 5 of 24"
    assert follow(RegistrationEvent(done=24, total=24)).summary == FIRST_STEP_TEXT
    step = StepEvent(step=10, progress=0.3, loss=1.27, remaining_s=179.0)
    status = follow(started, step)
    assert status.summary == "Training, about 3 min left"
    assert (status.progress, status.details) == (0.3, "Step 10, loss 1.270")
    assert "loss" not in status.summary


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (phase("starting", remaining_s=240.0), "Starting training (run 001)"),
        (phase("preparing", done=2, total=12), "Preparing scans 3 of 12"),
        (phase("aligning", done=4, total=24, remaining_s=130.0),
         "Aligning scans 5 of 24, about 2 min left"),
        (phase("training"), FIRST_STEP_TEXT),
        (phase("preview", remaining_s=62.0), "Updating preview, about 60 s left"),
        (phase("validation", done=0, total=2), "Validating case 1 of 2"),
        (phase("validation", done=2, total=2), "Validating case 2 of 2"),
        (phase("finishing"), "Finishing: saving the model"),
    ],
)  # fmt: skip
def test_phases_of_a_run_have_texts(event: Event, text: str) -> None:
    assert follow(event).summary == text


def test_training_goes_on_after_a_preview() -> None:
    step = StepEvent(step=10, progress=0.3, remaining_s=179.0)
    assert follow(step, phase("preview")).text == "Updating preview"
    assert follow(step, phase("preview"), phase("training")).text == "Training"


def test_commands_are_shown_until_the_engine_has_followed_them() -> None:
    step = StepEvent(step=10, progress=0.3, remaining_s=179.0)
    pausing = RunStatus("pausing", "001-dycon", text="Pausing…")
    assert follow(step, phase("preview"), status=pausing).summary == "Pausing…"
    paused = follow(PausedEvent(step=10), status=pausing)
    assert (paused.phase, paused.summary) == ("paused", "Paused")
    assert follow(ResumedEvent(), status=paused).phase == "training"
    stopping = RunStatus("stopping", "001-dycon", text="Stopping…")
    assert follow(step, PausedEvent(), ResumedEvent(), status=stopping).text == "Stopping…"
    assert follow(step, status=stopping).summary == "Stopping…"
    assert follow(phase("preview", remaining_s=62.0), status=stopping).summary == "Stopping…"
    ending = follow(phase("validation", done=0, total=1), status=stopping)
    assert (ending.phase, ending.text) == ("stopping", "Validating case 1 of 1")
    assert follow(FinishedEvent(step=11), status=ending) == RunStatus()


def test_the_validation_dice_is_told_in_words_with_the_number_of_cases() -> None:
    started = StartedEvent(run="001-dycon", validation=1)
    assert follow(started).score == ""
    assert follow(started, ValidationEvent(step=10, mean=0.443)).score == (
        "Network Dice on the validation case: 0.44"
    )
    assert describe_dice(0.0, 3) == "Network Dice on 3 validation cases: 0.00"


def test_devices_are_told_without_names_of_libraries() -> None:
    text = describe_device("cpu", CPU_REASON)
    assert text == "Running on the processor (no GPU support installed) – slower"
    assert "no GPU found" in describe_device("cpu", "CPU: no NVIDIA GPU was found, or its driver")
    assert "as chosen" in describe_device("cpu", "CPU, as chosen (a GPU is available)")
    assert describe_device("cuda", "GPU: NVIDIA H200") == "Running on the GPU (NVIDIA H200)"
    assert follow(StartedEvent(device="cpu", device_reason=CPU_REASON)).device_details
