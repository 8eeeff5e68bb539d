"""Review of predictions: predict, reload, navigate hotspots."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.cases.case_hotspots import (
    find_case_hotspots,
    find_region_threshold,
)
from napari_dycon.application.cases.loading import load_prediction
from napari_dycon.application.hotspots import Hotspot
from napari_dycon.application.labels.autosave import LabelAutosaver
from napari_dycon.application.labels.editing import LabelEditor
from napari_dycon.application.messages import report_notes
from napari_dycon.application.predictions.acceptance import PredictionAcceptance
from napari_dycon.application.predictions.controller import PredictionController
from napari_dycon.application.process_followers import ProcessFollowers
from napari_dycon.application.state import AppState
from napari_dycon.application.task_runner import TaskRunner
from napari_dycon.core.colormaps import DEFAULT_THRESHOLD
from napari_dycon.core.wording import format_count, format_volume

Position = tuple[float, float, float]


class Review:
    """Reloads and navigates predictions.

    Attributes
    ----------
    predictions : requests them
    acceptance : accepts them into the label
    """

    def __init__(
        self,
        state: AppState,
        task_runner: TaskRunner,
        followers: ProcessFollowers,
        editor: LabelEditor,
        autosaver: LabelAutosaver,
    ) -> None:
        self._state = state
        self._task_runner = task_runner
        self.predictions = PredictionController(state, followers, self.refresh)
        self.acceptance = PredictionAcceptance(state, task_runner, editor, autosaver)
        self._preview_of: str | None = None
        self._refresh_request = 0
        # Centers of viewed hotspots, for each case and run.
        self._visited: dict[tuple[str, str | None], set[tuple[int, int, int]]] = {}
        self._hotspot_index = -1  # index of the current hotspot
        self._threshold = DEFAULT_THRESHOLD
        state.case_shown.connect(self._on_prediction_changed)
        state.case_shown.connect(self._on_case_shown)
        state.prediction_changed.connect(self._on_prediction_changed)
        state.project_closed.connect(self._on_project_closed)

    @property
    def is_predicting(self) -> bool:
        """Whether a prediction is running."""
        return self.predictions.is_running

    def predict(self, ids: Sequence[str], run: str | None) -> None:
        """Predict cases; see ``Session.predict``."""
        self.predictions.start(ids, run)
        self.preview_of = None  # the predictions that were asked for are shown

    @property
    def preview_of(self) -> str | None:
        """Run whose previews are shown instead of finished predictions; ``None`` for none."""
        return self._preview_of

    @preview_of.setter
    def preview_of(self, run: str | None) -> None:
        if run == self._preview_of:
            return
        self._preview_of = run
        if self._state.case is not None:
            self.refresh(self._state.case.id)

    def _on_case_shown(self, case: ActiveCase | None) -> None:
        # Cases are read with their finished prediction, as no other part of the program uses
        # previews.
        if case is not None and self._preview_of is not None:
            self.refresh(case.id)

    def refresh(self, case_id: str) -> None:
        """Reload the newest prediction of the active case."""
        state = self._state
        case, project = state.case, state.project
        if case is None or project is None or case.id != case_id:
            return

        self._refresh_request += 1
        request = self._refresh_request  # an earlier one may end later

        def on_done(updated: ActiveCase) -> None:
            is_newest = request == self._refresh_request
            if is_newest and state.case is case and preview_of == self._preview_of:
                case.take_prediction(updated)
                report_notes(state, updated.notes)
                state.prediction_changed.emit(case)

        snapshot, preview_of = dataclasses.replace(case, notes=[]), self._preview_of
        self._task_runner.submit(
            lambda: load_prediction(project, snapshot, preview_of), on_done, state.report_error
        )

    # ---- Uncertain regions -------------------------------------------------------------------

    def set_threshold(self, threshold: float) -> None:
        """Leave out uncertain regions below the value from which uncertainty is shown."""
        self._threshold = threshold
        self._update_hotspots()

    def _update_hotspots(self) -> None:
        """Find the uncertain regions again if the threshold differs from that of the last time."""
        state, case, threshold = self._state, self._state.case, self._threshold
        if case is None or state.project is None or case.uncertainty is None:
            return
        project, minimum = state.project, find_region_threshold(case, threshold)
        if minimum == case.hotspot_threshold:
            return
        uncertainty, snapshot = case.uncertainty, dataclasses.replace(case)

        def on_done(hotspots: list[Hotspot]) -> None:
            is_current = state.case is case and case.uncertainty is uncertainty
            if is_current and self._threshold == threshold:
                case.hotspots, case.hotspot_threshold = hotspots, minimum
                self._hotspot_index = -1
                state.hotspots_changed.emit()

        self._task_runner.submit(
            lambda: find_case_hotspots(project, snapshot, minimum), on_done, state.report_error
        )

    def step_hotspot(self, direction: int) -> Position | None:
        """Return the next unviewed hotspot (``direction`` 1) or the previous one (-1), in mm.

        Hotspots are ranked by mass. Once all have been viewed, they repeat in order.
        """
        case = self._state.require_case()
        count = len(case.hotspots)
        if not count:
            return None
        visited = self._get_visited(case)
        index = self._hotspot_index if 0 <= self._hotspot_index < count else -1
        if direction < 0:
            index = (index - 1) % count if index >= 0 else count - 1
        else:
            order = [(index + 1 + offset) % count for offset in range(count)]
            index = next((n for n in order if case.hotspots[n].center not in visited), order[0])
        self._hotspot_index = index
        visited.add(case.hotspots[index].center)
        z, y, x = (
            c * s for c, s in zip(case.hotspots[index].center, case.image.spacing_mm, strict=True)
        )
        self._state.hotspot_visited.emit(index)
        return z, y, x

    @property
    def current_hotspot(self) -> Hotspot | None:
        """The hotspot that is shown, ``None`` before the first."""
        case = self._state.case
        if case is None or not 0 <= self._hotspot_index < len(case.hotspots):
            return None
        return case.hotspots[self._hotspot_index]

    def describe_hotspots(self) -> str:
        """Describe the current hotspot with its size, or how many there are."""
        number, count, n_visited = self.hotspot_progress()
        case, hotspot = self._state.case, self.current_hotspot
        if not count or case is None:
            return ""
        if hotspot is None:
            return f"{format_count(count, 'uncertain region')}, {n_visited} viewed"
        volume_mm3 = hotspot.voxels * float(np.prod(case.image.spacing_mm))
        return (
            f"Region {number} of {count}: {format_volume(volume_mm3)}, uncertainty "
            f"{hotspot.mean_uncertainty:.2f}"
        )

    def hotspot_progress(self) -> tuple[int, int, int]:
        """Return the number of the current hotspot (0 for none), their count, and viewed ones."""
        case = self._state.case
        if case is None:
            return 0, 0, 0
        visited = self._get_visited(case)
        n_visited = sum(hotspot.center in visited for hotspot in case.hotspots)
        return (
            (self._hotspot_index + 1 if self._hotspot_index < len(case.hotspots) else 0),
            len(case.hotspots),
            n_visited,
        )

    def _get_visited(self, case: ActiveCase) -> set[tuple[int, int, int]]:
        return self._visited.setdefault((case.id, case.run), set())

    def _on_prediction_changed(self, _: object) -> None:
        self._hotspot_index = -1
        self._update_hotspots()

    def _on_project_closed(self) -> None:
        self._visited.clear()
