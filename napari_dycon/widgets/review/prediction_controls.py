"""Buttons that predict cases; the progress row of the panel shows and cancels a prediction."""

from __future__ import annotations

from qtpy.QtWidgets import QHBoxLayout, QWidget

from napari_dycon.session import Session
from napari_dycon.widgets.window.helpers import (
    make_button,
    report_errors,
    set_enabled,
)


class PredictionControls(QWidget):
    """*Predict this case* and *Predict all unlabeled*."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.predictions = session.review.predictions
        self.predict_button = make_button(
            "Predict this case",
            "Predict the current case with the newest model. A quick preliminary prediction is "
            "shown first",
            report_errors(session, self._predict_case),
        )
        self.predict_all_button = make_button(
            "Predict all unlabeled",
            "Predict all unlabeled cases with the newest model",
            report_errors(session, self._predict_all),
        )
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.predict_button)
        layout.addWidget(self.predict_all_button)
        for signal in (session.project_changed, session.case_shown, session.runs_changed):
            signal.connect(self._refresh)
        self.predictions.status_changed.connect(self._refresh)
        self._refresh()

    def _refresh(self, *_: object) -> None:
        project = self.session.project
        has_weights = bool(project and any(run.has_weights for run in project.runs.list()))
        unavailable = "" if has_weights else "train first"
        if project and project.read_only_reason:
            unavailable = project.read_only_reason
        elif self.predictions.is_running:
            unavailable = "a prediction is running"
        no_case = "" if self.session.case else "select a case in the list first"
        set_enabled(self.predict_button, no_case or unavailable)
        set_enabled(self.predict_all_button, unavailable)

    def _predict_case(self) -> None:
        if self.session.case is not None:
            self.session.predict([self.session.case.id])

    def _predict_all(self) -> None:
        if self.session.project is not None:
            self.session.predict([case.id for case in self.session.project.unlabeled_cases()])
