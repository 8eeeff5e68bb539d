"""Volumes of the structures in the active label, and its agreement with the shown prediction."""

from __future__ import annotations

from psygnal import Signal

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.cases.agreement import Agreement, measure_agreement
from napari_dycon.application.state import AppState
from napari_dycon.application.task_runner import TaskRunner
from napari_dycon.core.types import LabelArray

Volumes = dict[int, float]


class ActiveAgreement:
    """Measures the active case after each change of label or prediction, for all that show it.

    Attributes
    ----------
    agreement : the last one of the active case; ``None`` while there is none
    is_outdated : label or prediction may have changed since it was measured
    """

    changed = Signal()

    def __init__(self, state: AppState, task_runner: TaskRunner) -> None:
        self._state = state
        self._task_runner = task_runner
        self.agreement: Agreement | None = None
        self.is_outdated = False
        self._prediction: LabelArray | None = None  # that it was measured with
        state.case_shown.connect(self._on_case_shown)
        for signal in (
            state.prediction_changed,
            state.label_edited,
            state.label_saved,
            state.cases_changed,  # structures, or an acceptance was recorded
        ):
            signal.connect(self.update)
        self.update()

    @property
    def volumes_ml(self) -> Volumes:
        """Volumes of the structures in the label in ml, by value."""
        rows = [] if self.agreement is None else self.agreement.rows
        return {row.value: row.label_ml for row in rows if row.label_ml is not None}

    def get_agreement(self, case: ActiveCase) -> Agreement | None:
        """Return the agreement of a case, if it was measured with its current prediction."""
        is_measured = self._state.case is case and self._prediction is case.prediction
        return self.agreement if is_measured else None

    def update(self, *_: object) -> None:
        """Measure the agreement again."""
        case, project = self._state.case, self._state.project
        if case is None or project is None:
            return
        self.is_outdated = True
        # The label is not copied: what an edit changes meanwhile is computed again.
        case_id, run, label, prediction = case.id, case.run, case.label, case.prediction
        spacing_mm = case.image.spacing_mm

        def on_done(agreement: Agreement) -> None:
            if self._state.case is case and case.prediction is prediction:
                self.is_outdated = False
                self._set(agreement, prediction)

        self._task_runner.submit_when_idle(
            "agreement",
            lambda: measure_agreement(project, case_id, run, label, prediction, spacing_mm),
            on_done,
            self._state.report_error,
        )

    def _on_case_shown(self, _: ActiveCase | None) -> None:
        self._set(None, None)
        self.update()

    def _set(self, agreement: Agreement | None, prediction: LabelArray | None) -> None:
        self.agreement, self._prediction = agreement, prediction
        self.changed.emit()
