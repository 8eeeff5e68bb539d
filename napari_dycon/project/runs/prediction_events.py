"""Events of predictions and of the demo; see ``events.py``."""

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


class PredictionStartedEvent(BaseEvent):
    """The run that predicts, and where. It is the first event of ``predict``."""

    event: Literal["prediction_started"] = "prediction_started"
    run: Text = Field(default="", description="Id of the run.")
    is_default: bool = Field(
        default=False, description="Whether it was used because it is the newest one."
    )
    step: Count = Field(default=0, description="Number of steps of its weights.")
    trained: Number | None = Field(
        default=None, description="When they were saved, in seconds since the epoch."
    )
    dice: Number | None = Field(
        default=None, description="Mean validation Dice of the networks only."
    )
    total: Count = Field(default=0, description="Number of scans to predict.")
    folder: AnyText = Field(default="", description="Folder of the predictions.")
    replaced: dict[str, Count] = Field(
        default_factory=dict,
        description="Number of predictions of other weights that will be replaced, by run.",
    )


class PredictionSummaryEvent(BaseEvent):
    """What ``predict`` has written. Events of skipped scans may follow."""

    event: Literal["prediction_summary"] = "prediction_summary"
    run: Text = Field(default="", description="Id of the run.")
    folder: AnyText = Field(default="", description="Folder of the predictions.")
    predicted: Count = Field(default=0, description="Number of predictions written.")
    failed: Count = Field(default=0, description="Number of scans without a prediction.")


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
