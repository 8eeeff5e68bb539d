"""Events of training runs; see ``events.py``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from napari_dycon.project.runs.base_event import (
    AnyText,
    BaseEvent,
    Count,
    Fraction,
    Message,
    Number,
    Text,
)


class StartedEvent(BaseEvent):
    """A run was started or resumed. This is the first event of each part of a run."""

    event: Literal["started"] = "started"
    run: Text = Field(default="", description="Id of the run, such as 001-dycon.")
    method: Text = Field(default="", description="Training method.")
    preset: Text | None = Field(default=None, description="Preset of the settings.")
    device: Text = Field(default="", description="Type of the device: cuda, mps or cpu.")
    device_reason: Text = Field(default="", description="Why this device was chosen.")
    precision: Text = Field(default="", description="float32, bfloat16 or float16.")
    labeled: Count = Field(default=0, description="Number of labeled training cases.")
    unlabeled: Count = Field(default=0, description="Number of unlabeled training cases.")
    validation: Count = Field(default=0, description="Number of validation cases.")
    steps: Count | None = Field(default=None, description="Maximum number of steps.")
    time_limit: Number | None = Field(default=None, description="Maximum training time in seconds.")
    pid: Count | None = Field(default=None, description="Id of the training process.")
    resumed_from_step: Count | None = Field(
        default=None,
        description="Step of the checkpoint that the run continues from; 0 in a new run. Later "
        "steps are repeated.",
    )


Phase = Literal[
    "starting", "preparing", "aligning", "training", "preview", "validation", "finishing"
]


class PhaseEvent(BaseEvent):
    """What the run is doing.

    It is sent when a phase begins and once a second or more often while it goes on, except in
    "training", where ``step`` events follow. Phases: "starting", "preparing" (scans), "aligning"
    (labeled scans to unlabeled ones), "training", "preview" (of the displayed case), "validation"
    (of the validation cases), "finishing" (saving and calibration at the end of the run).
    """

    event: Literal["phase"] = "phase"
    phase: Phase = Field(default="starting", description="Name of the phase.")
    done: Count = Field(default=0, description="Number of scans or cases that are done.")
    total: Count = Field(
        default=0, description="Number of scans or cases of the phase; 0 if it has no parts."
    )
    remaining_s: Number | None = Field(
        default=None,
        description="Estimated seconds until the whole run is over, including its end; null if "
        "unknown.",
    )


class PreparingEvent(BaseEvent):
    """Scans are being prepared. It is sent at least once a second."""

    event: Literal["preparing"] = "preparing"
    done: Count = Field(default=0, description="Number of prepared scans.")
    total: Count = Field(default=0, description="Number of scans to prepare.")


class RegistrationEvent(BaseEvent):
    """A labeled scan was registered to an unlabeled one."""

    event: Literal["registration"] = "registration"
    done: Count = Field(default=0, description="Number of registered pairs.")
    total: Count = Field(default=0, description="Number of pairs to register.")


class StepEvent(BaseEvent):
    """An optimization step was taken. It is sent at most twice a second."""

    event: Literal["step"] = "step"
    step: Count = Field(default=0, description="Number of steps taken.")
    steps: Count | None = Field(default=None, description="Maximum number of steps.")
    progress: Fraction = Field(default=0.0, description="Progress of the run, from 0 to 1.")
    loss: Number | None = Field(default=None, description="Total loss; null if not finite.")
    loss_terms: dict[str, Number | None] = Field(
        default_factory=dict, description="Terms of the loss by name; null if not finite."
    )
    beta: Number | None = Field(
        default=None, description="β of UnCL: how strongly uncertain voxels are down-weighted."
    )
    learning_rate: Number | None = Field(default=None, description="Learning rate of the step.")
    elapsed_s: Number | None = Field(default=None, description="Training time so far in seconds.")
    remaining_s: Number | None = Field(
        default=None,
        description="Estimated seconds until the whole run is over, including previews, "
        "validation and its end; null if unknown.",
    )


class SemiSupervisedEvent(BaseEvent):
    """The losses of unlabeled scans are added from this step on; see ``semi_supervised.start``.

    The total loss rises at first, as it has further terms; its term "supervised" does not. Before,
    unlabeled scans are used only as registered cases with pseudo-labels. The event is sent again
    after a resume.
    """

    event: Literal["semi_supervised"] = "semi_supervised"
    step: Count = Field(default=0, description="Number of steps taken, with the first such step.")
    progress: Fraction = Field(default=0.0, description="Progress of the run, from 0 to 1.")


class ValidationEvent(BaseEvent):
    """The validation cases were evaluated with the networks only.

    Predictions also use labeled scans as atlases if ``atlas.weight`` is not 0, so that their Dice
    differs and is usually higher; ``evaluate`` measures it.
    """

    event: Literal["validation"] = "validation"
    step: Count = Field(default=0, description="Number of steps taken.")
    progress: Fraction = Field(default=0.0, description="Progress of the run, from 0 to 1.")
    dice: dict[str, Number | None] = Field(
        default_factory=dict, description="Mean Dice over the cases by class value."
    )
    mean: Number | None = Field(
        default=None,
        description="Mean Dice over the classes, of the networks only; null if no case was "
        "evaluated.",
    )
    skipped_cases: dict[str, Message] = Field(
        default_factory=dict, description="Cases that could not be evaluated, each with a reason."
    )
    ensemble: bool = Field(
        default=True,
        description="Whether the ensemble that also predicts was evaluated; false if the time "
        "limit left time for a single network only, whose Dice is slightly lower.",
    )


class PreviewEvent(BaseEvent):
    """The displayed case was predicted during training."""

    event: Literal["preview"] = "preview"
    case: Text = Field(default="", description="Id of the case.")
    step: Count = Field(default=0, description="Number of steps taken.")
    mask: AnyText = Field(default="", description="Path of the predicted mask.")
    uncertainty: AnyText = Field(default="", description="Path of the uncertainty map.")


class CheckpointEvent(BaseEvent):
    """A checkpoint was written: weights and training state are on the disk."""

    event: Literal["checkpoint"] = "checkpoint"
    step: Count = Field(default=0, description="Number of steps taken.")


class WarningEvent(BaseEvent):
    """Something went wrong, and the run continues."""

    event: Literal["warning"] = "warning"
    message: Message = Field(default="", description="Problem and consequence, for people.")


class PausedEvent(BaseEvent):
    """The user paused the run."""

    event: Literal["paused"] = "paused"
    step: Count = Field(default=0, description="Number of steps taken.")


class ResumedEvent(BaseEvent):
    """The run continues after a pause, or from a checkpoint after memory ran out."""

    event: Literal["resumed"] = "resumed"
    step: Count = Field(default=0, description="Number of steps taken.")
    resumed_from_step: Count | None = Field(
        default=None,
        description="Step of the checkpoint that was restored; null after a pause. Later steps "
        "are repeated.",
    )


class CalibratedEvent(BaseEvent):
    """The temperature was fitted to the validation cases."""

    event: Literal["calibrated"] = "calibrated"
    temperature: Number = Field(default=1.0, description="Divisor of the logits.")


class _RunEndEvent(BaseEvent):
    step: Count = Field(default=0, description="Number of steps taken.")
    elapsed_s: Number = Field(default=0.0, description="Training time in seconds.")
    skipped: Count = Field(
        default=0, description="Number of steps skipped because their loss was not finite."
    )
    dice: Number | None = Field(
        default=None,
        description="Mean validation Dice of the networks only; null without validation.",
    )


class FinishedEvent(_RunEndEvent):
    """The run is complete. This is its last event."""

    event: Literal["finished"] = "finished"
    reason: Text | None = Field(
        default=None, description="Limit that ended the run: steps or time limit."
    )


class StoppedEvent(_RunEndEvent):
    """The user stopped the run; its weights are saved. This is its last event."""

    event: Literal["stopped"] = "stopped"


class FailedEvent(BaseEvent):
    """The run or prediction failed. This is its last event."""

    event: Literal["failed"] = "failed"
    message: Message = Field(default="", description="Reason and advice, for people.")
