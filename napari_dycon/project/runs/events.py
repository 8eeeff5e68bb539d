"""Events that report the progress of runs and predictions.

An event is a small model. In ``events.jsonl`` and on standard output it is a line with one JSON
object: ``event`` is its kind, ``time`` is present in the events of a run. ``format_event`` writes
such a line and ``parse_event`` reads one, within limits: a project can come from anywhere, and a
crash can leave half a line.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from napari_dycon.core.untrusted import parse_json

MAX_LINE_BYTES = 2**18
MAX_TEXT_LENGTH = 4000
MAX_NUMBER = 10**12


def _escape_surrogates(value: object) -> object:
    """Escape lone surrogates, as in names of files that are not valid UTF-8."""
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", errors="backslashreplace").decode("utf-8")


def _shorten(value: object) -> object:
    """Shorten a message to the limit: an event must not be lost because of a long error message."""
    return value[:MAX_TEXT_LENGTH] if isinstance(value, str) else value


AnyText = Annotated[str, BeforeValidator(_escape_surrogates)]
Text = Annotated[AnyText, Field(max_length=MAX_TEXT_LENGTH)]
Message = Annotated[str, BeforeValidator(_shorten), BeforeValidator(_escape_surrogates)]
Count = Annotated[int, Field(ge=0, le=MAX_NUMBER)]
Number = Annotated[float, Field(ge=-MAX_NUMBER, le=MAX_NUMBER, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class BaseEvent(BaseModel):
    """Fields and behavior that all events share.

    Fields that are missing in a line have their defaults; keys of newer versions are ignored.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    event: str
    time: Number | None = Field(
        default=None, description="Seconds since the epoch; null in events of a prediction."
    )

    def __getitem__(self, key: str) -> Any:
        """Return a field by its key, so that scripts read events like lines of ``events.jsonl``."""
        if self.model_extra and key in self.model_extra:
            return self.model_extra[key]
        if key not in type(self).model_fields:
            raise KeyError(key)
        return getattr(self, key)

    def __contains__(self, key: object) -> bool:
        """Whether this kind of event has a field."""
        return key in type(self).model_fields or key in (self.model_extra or {})

    def get(self, key: str, default: Any = None) -> Any:
        """Return a field by its key, or a default if this kind of event does not have it."""
        try:
            return self[key]
        except KeyError:
            return default


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


class ValidationEvent(BaseEvent):
    """The validation cases were evaluated."""

    event: Literal["validation"] = "validation"
    step: Count = Field(default=0, description="Number of steps taken.")
    progress: Fraction = Field(default=0.0, description="Progress of the run, from 0 to 1.")
    dice: dict[str, Number | None] = Field(
        default_factory=dict, description="Mean Dice over the cases by class value."
    )
    mean: Number | None = Field(
        default=None, description="Mean Dice over the classes; null if no case was evaluated."
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
        default=None, description="Mean validation Dice; null without validation."
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


class PredictingEvent(BaseEvent):
    """A scan is predicted next.

    It may precede the ``predicted`` event of the scan before, whose files are still being written.
    """

    event: Literal["predicting"] = "predicting"
    case: Text = Field(default="", description="Id of the case, or name of the file.")
    done: Count = Field(default=0, description="Number of predicted scans, with templates.")
    total: Count = Field(default=0, description="Number of scans to predict, with templates.")
    remaining_s: Number | None = Field(
        default=None, description="Estimated remaining time in seconds; null for the first scan."
    )


class TemplatesEvent(BaseEvent):
    """An unlabeled scan was predicted as a template, an atlas for the other predictions."""

    event: Literal["templates"] = "templates"
    case: Text = Field(default="", description="Id of the case.")
    done: Count = Field(default=0, description="Number of the template.")
    total: Count = Field(default=0, description="Number of templates.")


class PredictedEvent(BaseEvent):
    """A scan was predicted, and its files are written."""

    event: Literal["predicted"] = "predicted"
    case: Text = Field(default="", description="Id of the case, or name of the file.")
    done: Count = Field(default=0, description="Number of processed scans.")
    total: Count = Field(default=0, description="Number of scans to predict.")
    volume_ml: dict[str, Number] = Field(
        default_factory=dict, description="Volume of each class value in milliliters."
    )
    mean_uncertainty: Number | None = Field(
        default=None, description="Mean of the uncertainty map over the scan."
    )


class SkippedEvent(BaseEvent):
    """A scan could not be predicted; the others are."""

    event: Literal["skipped"] = "skipped"
    case: Text = Field(default="", description="Id of the case, or name of the file.")
    reason: Message = Field(default="", description="Reason and advice, for people.")


class PredictionFinishedEvent(BaseEvent):
    """All requested scans are predicted. It is sent by ``Session`` only."""

    event: Literal["prediction_finished"] = "prediction_finished"


class DemoEvent(BaseEvent):
    """A part of the demo is done."""

    event: Literal["demo"] = "demo"
    message: Message = Field(default="", description="What was done, for people.")
    picture: AnyText | None = Field(default=None, description="Path of a screenshot.")
    mean_dice: Number | None = Field(default=None, description="Mean Dice of the predictions.")
    report: AnyText | None = Field(default=None, description="Path of the report.")


class IdleEvent(BaseEvent):
    """There is no new event. It lets a thread that follows a run end, and is never written."""

    event: Literal["idle"] = "idle"


class PredictionProgressEvent(BaseEvent):
    """Progress of a prediction. It is sent about once a second."""

    event: Literal["prediction_progress"] = "prediction_progress"
    phase: Text = Field(
        default="",
        description="loading, preliminary, checking (whether atlases can be used), references "
        "(templates), predicting, or comparing (features of labeled scans).",
    )
    case: Text = Field(default="", description="Id of the case, or name of the file.")
    done: Count = Field(default=0, description="Number of finished scans of this phase.")
    total: Count = Field(default=0, description="Number of scans of this phase.")
    progress: Fraction = Field(default=0.0, description="Progress of all phases, from 0 to 1.")
    remaining_s: Number | None = Field(
        default=None,
        description="Estimated remaining time of all phases in seconds; null if unknown.",
    )


class PreliminaryEvent(BaseEvent):
    """A scan was predicted by one network alone; the complete prediction follows."""

    event: Literal["preliminary"] = "preliminary"
    case: Text = Field(default="", description="Id of the case.")


class PredictionCanceledEvent(BaseEvent):
    """The user canceled the prediction. It is sent by ``Session`` only, as the last event."""

    event: Literal["prediction_canceled"] = "prediction_canceled"


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
    | PredictingEvent
    | TemplatesEvent
    | PredictedEvent
    | SkippedEvent
    | PredictionFinishedEvent
    | DemoEvent
    | IdleEvent
    | PredictionProgressEvent
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
