"""Status of a prediction, derived from its events by a pure function, and its texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from napari_dycon.core.durations import format_elapsed, format_remaining
from napari_dycon.core.wording import format_count
from napari_dycon.project.runs.events import (
    Event,
    PredictedEvent,
    PredictionProgressEvent,
    PreliminaryEvent,
    SkippedEvent,
)

NEXT_TEXT = "Next: review the uncertain regions (N)."
EMPTY_NEXT_TEXT = "Next: label more cases, or train longer."


@dataclasses.dataclass(frozen=True)
class PredictionStatus:
    """Status of a prediction that is running.

    Attributes
    ----------
    run : run whose networks predict
    cases : cases to predict
    progress : latest progress; ``None`` before the first
    predicted, skipped : cases that are done, and those that could not be predicted
    empty : predicted cases in which no structure was found
    preliminary : cases with a preliminary prediction, until they are done
    is_canceling : whether the user has canceled it
    names : names shown for the cases, by id
    """

    run: str
    cases: tuple[str, ...]
    progress: PredictionProgressEvent | None = None
    predicted: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    preliminary: tuple[str, ...] = ()
    is_canceling: bool = False
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def get_name(self, case: str) -> str:
        """Return the name shown for a case."""
        return self.names.get(case, case)

    @property
    def fraction(self) -> float | None:
        """Fraction of the work that is done, ``None`` if it is unknown."""
        if self.progress is None or self.progress.remaining_s is None:
            return None
        return self.progress.progress

    def is_refining(self, case: str) -> bool:
        """Whether the complete prediction of a case with a preliminary one is still computed."""
        return case in self.preliminary


def apply_event(status: PredictionStatus, event: Event) -> PredictionStatus:
    """Return the status after an event; unknown events change nothing."""
    match event:
        case PredictionProgressEvent():
            return dataclasses.replace(status, progress=event)
        case PreliminaryEvent():
            return dataclasses.replace(status, preliminary=(*status.preliminary, event.case))
        case PredictedEvent():
            empty = () if any(event.volume_ml.values()) else (event.case,)
            return dataclasses.replace(
                status,
                predicted=(*status.predicted, event.case),
                empty=(*status.empty, *empty),
                preliminary=tuple(case for case in status.preliminary if case != event.case),
            )
        case SkippedEvent():
            return dataclasses.replace(status, skipped=(*status.skipped, event.case))
    return status


def describe_status(status: PredictionStatus) -> str:
    """Describe what a prediction is doing, with the remaining time."""
    if status.is_canceling:
        return "Canceling…"
    if status.progress is None:
        return f"Loading the network of run {status.run}…"
    return describe_progress(status.progress, status.get_name(status.progress.case))


def describe_progress(event: PredictionProgressEvent, name: str = "") -> str:
    """Describe a phase of a prediction, with the remaining time.

    Parameters
    ----------
    name : shown for the case; by default its id
    """
    name = name or event.case
    number = min(event.done + 1, max(event.total, 1))
    position = f"{number} of {event.total}"
    text = {
        "loading": "Loading the network",
        "preliminary": f"First quick prediction of {name}",
        "checking": "Comparing the labeled scans",
        "references": f"Preparing reference scans: {position} (once per training)",
        "predicting": f"Predicting {name}" + (f" ({position})" if event.total > 1 else ""),
        "comparing": f"Comparing with the labeled scans: {position}",
    }.get(event.phase, "Predicting")
    if event.remaining_s is None:
        return f"{text}…"
    return f"{text}, {format_remaining(event.remaining_s)}"


def describe_incomplete_ranking(status: PredictionStatus | None) -> str:
    """Return a note that cases are still being predicted; empty if they are not."""
    if status is None or len(status.cases) < 2:
        return ""
    n_done = len(status.predicted) + len(status.skipped)
    return (
        f"This ranking is preliminary: {n_done} of {format_count(len(status.cases), 'case')} "
        "predicted so far."
    )


def describe_result(status: PredictionStatus, seconds: float) -> str:
    """Describe a prediction that ended without an error."""
    n_cases = len(status.cases)
    if status.is_canceling and len(status.predicted) < n_cases:
        if n_cases == 1:
            text = f"Prediction of {status.get_name(status.cases[0])} canceled."
        else:
            text = f"{describe_updated(status)}; canceled."
        if status.preliminary:
            name = status.get_name(status.preliminary[0])
            text += f" The prediction of {name} is still preliminary."
        return text
    text = f"{describe_updated(status)} in {format_elapsed(seconds)}. "
    if status.empty:
        text += describe_empty(status) + " "
    return text + (NEXT_TEXT if len(status.empty) < n_cases else EMPTY_NEXT_TEXT)


def describe_empty(status: PredictionStatus) -> str:
    """Say in which of the predicted scans no structure was found."""
    if len(status.cases) == 1:
        return "No structure was found in it."
    if len(status.empty) == len(status.cases):
        return "No structure was found in any of them."
    if len(status.empty) == 1:
        return f"No structure was found in {status.get_name(status.empty[0])}."
    return f"No structure was found in {len(status.empty)} of them."


def describe_updated(status: PredictionStatus) -> str:
    """Describe which predictions were updated: "Predictions of 3 of 5 scans updated"."""
    n_cases, n_predicted = len(status.cases), len(status.predicted)
    if n_cases == 1:
        return f"Prediction of {status.get_name(status.cases[0])} updated"
    which = format_count(n_cases, "scan")
    return (
        f"Predictions of {which if n_predicted == n_cases else f'{n_predicted} of {which}'} updated"
    )
