"""The progress bar follows the events of an engine process."""

from __future__ import annotations

from typing import Any

from napari_dycon.project.runs.events import PredictedEvent, PredictingEvent
from napari_dycon.widgets.window.task_runner import PROGRESS_STEPS, update_progress


class Bar:
    """What ``update_progress`` needs of napari's progress bar."""

    def __init__(self) -> None:
        self.n, self.text = 0, ""

    def update(self, count: int) -> None:
        self.n += count

    def set_description(self, text: str) -> None:
        self.text = text


def test_predictions_and_templates_are_reported_before_they_start() -> None:
    bar: Any = Bar()
    event = PredictingEvent(case="scan-7", done=0, total=4, remaining_s=None)
    update_progress(bar, "Predicting", event)
    assert (bar.n, bar.text) == (0, "Predicting: scan-7")
    update_progress(
        bar,
        "Predicting",
        event.model_copy(update={"case": "scan-2", "done": 2, "remaining_s": 300.0}),
    )
    assert (bar.n, bar.text) == (PROGRESS_STEPS // 2, "Predicting: scan-2, 5 min left")
    # Its numbers are those of the scans alone: the bar would go back.
    update_progress(bar, "Predicting", PredictedEvent(case="scan-1", done=1, total=2))
    update_progress(bar, "Predicting", PredictedEvent(case="scan-1", done=1, total=4))
    assert bar.n == PROGRESS_STEPS // 2
