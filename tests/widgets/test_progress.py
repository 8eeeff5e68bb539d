"""The progress bar follows the events of an engine process."""

from __future__ import annotations

from typing import Any

from napari_dycon.project.runs.events import (
    PredictedEvent,
    PredictingEvent,
    PredictionProgressEvent,
)
from napari_dycon.widgets.window.activity_display import PROGRESS_STEPS, update_progress


class Bar:
    """What ``update_progress`` needs of napari's progress bar."""

    def __init__(self) -> None:
        self.n, self.text = 0, ""

    def update(self, count: int) -> None:
        self.n += count

    def set_description(self, text: str) -> None:
        self.text = text


def test_the_phases_of_a_prediction_are_shown_with_the_time_left() -> None:
    bar: Any = Bar()
    event = PredictionProgressEvent(phase="loading")
    update_progress(bar, "Predicting", event)
    assert (bar.n, bar.text) == (0, "Loading the network…")
    update_progress(
        bar,
        "Predicting",
        PredictionProgressEvent(
            phase="references", case="scan-2", done=2, total=8, progress=0.5, remaining_s=300.0
        ),
    )
    assert bar.n == PROGRESS_STEPS // 2
    assert bar.text == "Preparing reference scans: 3 of 8 (once per training), about 5 min left"
    # Their numbers are those of the scans alone: the bar would go back.
    update_progress(bar, "Predicting", PredictingEvent(case="scan-1", done=1, total=4))
    update_progress(bar, "Predicting", PredictedEvent(case="scan-1", done=1, total=4))
    assert bar.n == PROGRESS_STEPS // 2
