"""Shows cases of the open project, and reads ahead those that may be shown next."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.cases.cache import CaseCache
from napari_dycon.application.cases.loading import LoadedCase
from napari_dycon.application.labels.autosave import LabelAutosaver
from napari_dycon.application.labels.autosave_state import AutosaveState
from napari_dycon.application.messages import report_notes
from napari_dycon.application.state import AppState
from napari_dycon.application.task_runner import TaskRunner
from napari_dycon.errors import BusyError, DyconError

MAX_VOXELS_AT_ONCE = 10_000_000  # read in about a second; larger scans are shown before their maps


class CaseService:
    """Loads cases and makes them active.

    Cases are read in the background; the answer to a request that another one followed is dropped.

    Attributes
    ----------
    cache : cases of the open project that were read lately
    blocked_reason : why no case can be shown at the moment; empty if one can
    """

    def __init__(self, state: AppState, task_runner: TaskRunner, autosaver: LabelAutosaver) -> None:
        self._state = state
        self._task_runner = task_runner
        self._autosaver = autosaver
        self.cache = CaseCache()
        self.blocked_reason = ""
        self._generation = 0  # number of the current request, to detect late results
        state.project_closed.connect(self._release)

    def show(self, case_id: str) -> None:
        """Load a case and make it active; see ``Session.show_case``."""
        if self.blocked_reason:
            raise BusyError(f"{self.blocked_reason}. Wait until it has finished.")
        project, cache = self._state.require_project(), self.cache
        title = f"Reading {project.get_case(case_id).display_name}"  # raises for an unknown id
        self._autosaver.flush()
        self._generation += 1
        generation = self._generation
        self._state.message.emit("info", "")  # clears messages about another case

        def on_done(loaded: LoadedCase) -> None:
            # A later click wins over a slower earlier one.
            if generation == self._generation:
                self._replace_case(loaded)

        def on_error(error: Exception) -> None:
            if generation == self._generation:
                self._state.report_error(error)
                self._state.cases_changed.emit()  # the list selects the active case again

        self._task_runner.submit_with_progress(
            title,
            lambda _: cache.load(project, case_id, MAX_VOXELS_AT_ONCE),
            on_done,
            on_error,
            is_docked=False,
        )

    @property
    def request_number(self) -> int:
        """Number of the newest request for a case, to detect that another one followed."""
        return self._generation

    def drop_request(self) -> None:
        """Keep the active case: the case that is being read will not be shown."""
        self._generation += 1

    def save_label(self) -> None:
        """Save the label of the active case before returning."""
        self._autosaver.flush()

    def hide(self) -> None:
        """Save the label of the active case and show none; late answers are dropped."""
        self._autosaver.flush()
        self.drop_request()
        self._state.case = None
        self._state.case_shown.emit(None)

    def preload(self, case_ids: Sequence[str]) -> None:
        """Read cases that may be shown next; see ``Session.preload_cases``."""
        project, cache, generation = self._state.project, self.cache, self._generation
        if project is None or not case_ids:
            return
        if self._state.case is not None and not cache.has_room_for(self._state.case):
            return  # other cases are likely as large and would not be cached
        first, *rest = case_ids

        def preload_rest(_: object) -> None:
            if generation == self._generation:
                self.preload(rest)

        self._task_runner.submit_when_idle(
            "preload", lambda: cache.load(project, first), preload_rest, preload_rest
        )

    def _replace_case(self, loaded: LoadedCase) -> None:
        try:
            self._autosaver.flush()  # strokes made while the case was being read
        except DyconError:
            self._state.cases_changed.emit()  # the old case stays active, also in the list
            return
        old, case = self._state.case, loaded.case
        if old is not None and old.id == case.id:  # newer than what was just read
            case.label = old.label
        else:
            self._autosaver.track(AutosaveState(loaded.saved_label, loaded.label_version))
        case.name = self._state.require_project().get_case(case.id).name
        self._state.case = case
        self._state.case_shown.emit(case)
        report_notes(self._state, case.notes)
        if case.is_prediction_pending:
            self._load_prediction(loaded)

    def _load_prediction(self, loaded: LoadedCase) -> None:
        """Read the prediction of a case that is already shown."""
        project, cache, case = self._state.require_project(), self.cache, loaded.case

        def on_done(complete: ActiveCase) -> None:
            # A preview that was shown meanwhile is newer.
            if self._state.case is case and case.is_prediction_pending:
                case.take_prediction(complete)
                self._state.prediction_changed.emit(case)
                report_notes(self._state, complete.notes)

        def on_error(error: Exception) -> None:
            self._state.report_error(error)
            on_done(dataclasses.replace(case, notes=[]))  # without a prediction

        self._task_runner.submit_with_progress(
            f"Reading the prediction of {case.display_name}",
            lambda _: cache.load_pending_prediction(project, loaded),
            on_done,
            on_error,
            is_docked=False,
        )

    def _release(self) -> None:
        self.drop_request()
        self.blocked_reason = ""
        self.cache = CaseCache()
