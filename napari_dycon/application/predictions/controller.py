"""Control of a prediction process: start, follow, cancel."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence

from psygnal import Signal

from napari_dycon.application import engine_process
from napari_dycon.application.predictions.status import (
    PredictionStatus,
    apply_event,
    describe_result,
    describe_status,
    describe_updated,
)
from napari_dycon.application.process_followers import ProcessFollowers
from napari_dycon.application.state import AppState
from napari_dycon.application.task_runner import Progress
from napari_dycon.errors import BusyError, UserError
from napari_dycon.project.runs.events import (
    Event,
    FailedEvent,
    IdleEvent,
    PredictedEvent,
    PredictionCanceledEvent,
    PredictionFinishedEvent,
    PreliminaryEvent,
)


class PredictionController:
    """Predicts cases in a process, one prediction at a time.

    Parameters
    ----------
    on_prediction : called with the id of each case whose files were written

    Attributes
    ----------
    status : of the running prediction, ``None`` if there is none
    """

    status_changed = Signal(object)  # PredictionStatus | None

    def __init__(
        self,
        state: AppState,
        followers: ProcessFollowers,
        on_prediction: Callable[[str], None],
    ) -> None:
        self._state = state
        self._followers = followers
        self._on_prediction = on_prediction
        self._cancel = threading.Event()
        self.status: PredictionStatus | None = None
        state.project_closed.connect(self._on_project_closed)

    @property
    def is_running(self) -> bool:
        """Whether a prediction is running."""
        return self.status is not None

    def start(self, ids: Sequence[str], run: str | None) -> None:
        """Predict cases; see ``Session.predict``.

        If the active case is one of them, it is the first, and gets a preliminary prediction.
        """
        state = self._state
        project = state.require_project()
        project.require_writable()
        if self.is_running:
            raise BusyError("A prediction is already running. Wait for it, or cancel it.")
        if not ids:
            raise UserError("There are no cases to predict: all are labeled.")
        chosen = project.runs.get(run)
        cases = [project.get_case(case_id).id for case_id in ids]
        active = [state.case.id] if state.case is not None and state.case.id in cases else []
        cases = active + [case for case in cases if case not in active]
        self._cancel = canceled = threading.Event()
        start_time = time.monotonic()

        def on_event(event: Event) -> None:
            if state.project is project and not isinstance(event, IdleEvent):
                self._on_event(event, start_time)

        names = {case: project.get_case(case).display_name for case in cases}
        self._set_status(PredictionStatus(chosen.id, tuple(cases), names=names))
        events = engine_process.run_prediction(
            project.path, chosen.id, cases, preliminary=len(active), canceled=canceled
        )
        self._followers.follow(
            f"Predicting with {chosen.id}",
            events,
            on_event,
            get_progress=self._get_progress,
            on_cancel=self.cancel,
        )

    def cancel(self) -> None:
        """Cancel the prediction; cases that are done are kept, and so is a preliminary one."""
        if self.status is None or self.status.is_canceling:
            return
        self._set_status(dataclasses.replace(self.status, is_canceling=True))
        self._cancel.set()

    def _get_progress(self) -> Progress:
        status = self.status
        if status is None:
            return Progress("", None)
        return Progress(describe_status(status), status.fraction)

    def _on_event(self, event: Event, start_time: float) -> None:
        status, state = self.status, self._state
        if status is None:
            return
        is_last = isinstance(event, (FailedEvent, PredictionFinishedEvent, PredictionCanceledEvent))
        status = apply_event(status, event)
        self._set_status(None if is_last else status)
        state.event.emit(event)
        if isinstance(event, (PredictedEvent, PreliminaryEvent)):
            self._on_prediction(event.case)
        if isinstance(event, PredictedEvent) or is_last:
            state.cases_changed.emit()
        if isinstance(event, FailedEvent):
            done = f"{describe_updated(status)}. " if status.predicted else ""
            state.message.emit("error", f"{done}{event.message}")
        elif is_last:
            level = "info" if isinstance(event, PredictionCanceledEvent) else "result"
            state.message.emit(level, describe_result(status, time.monotonic() - start_time))

    def _set_status(self, status: PredictionStatus | None) -> None:
        if status != self.status:
            self.status = status
            self.status_changed.emit(status)

    def _on_project_closed(self) -> None:
        self._cancel.set()
        self._set_status(None)
