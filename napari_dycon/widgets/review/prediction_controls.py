"""Buttons that predict cases, and what a running prediction is doing, with *Cancel*."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QProgressBar, QSizePolicy, QVBoxLayout, QWidget

from napari_dycon.application.predictions.status import PredictionStatus, describe_status
from napari_dycon.core.text import escape_control_characters
from napari_dycon.session import Session
from napari_dycon.widgets.window.helpers import (
    make_button,
    make_plain_label,
    report_errors,
    set_enabled,
)

BAR_STEPS = 1000
BAR_HEIGHT_PX = 10


class PredictionControls(QWidget):
    """*Predict this case* and *Predict all unlabeled*, with text, bar and *Cancel*.

    The places of text, bar and *Cancel* stay reserved, so that nothing moves under the mouse.
    """

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
        self.status_label = make_plain_label()
        self.status_label.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(BAR_HEIGHT_PX)
        self.bar.setAccessibleName("Progress of the prediction")
        self.cancel_button = make_button(
            "Cancel",
            "Cancel the prediction; cases that are done are kept",
            report_errors(session, self.predictions.cancel),
        )
        self._lay_out()
        for signal in (session.project_changed, session.case_shown, session.runs_changed):
            signal.connect(self._refresh)
        self._was_running = False
        self.predictions.status_changed.connect(self._on_status_changed)
        self._on_status_changed(self.predictions.status)
        self._refresh()

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        buttons = QHBoxLayout()
        buttons.addWidget(self.predict_button)
        buttons.addWidget(self.predict_all_button)
        layout.addLayout(buttons)
        layout.addWidget(self.status_label)
        line = QHBoxLayout()
        line.addWidget(self.bar, 1)
        line.addWidget(self.cancel_button)
        layout.addLayout(line)
        # Two lines of text, whatever is shown.
        self.status_label.setFixedHeight(2 * self.status_label.fontMetrics().lineSpacing() + 4)
        for widget in (self.bar, self.cancel_button):
            policy = widget.sizePolicy()
            policy.setRetainSizeWhenHidden(True)
            widget.setSizePolicy(policy)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)

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

    def _on_status_changed(self, status: PredictionStatus | None) -> None:
        is_running = status is not None
        self.bar.setVisible(is_running)
        self.cancel_button.setVisible(is_running)
        if status is None:
            self.status_label.setText("")
        else:
            self.status_label.setText(escape_control_characters(describe_status(status)))
            fraction = status.fraction
            # A range of 0 shows that it is busy.
            self.bar.setRange(0, 0 if fraction is None else BAR_STEPS)
            self.bar.setValue(0 if fraction is None else round(BAR_STEPS * fraction))
            set_enabled(self.cancel_button, "it is being canceled" if status.is_canceling else "")
        if is_running != self._was_running:
            self._was_running = is_running
            self._refresh()

    def _predict_case(self) -> None:
        if self.session.case is not None:
            self.session.predict([self.session.case.id])

    def _predict_all(self) -> None:
        if self.session.project is not None:
            self.session.predict([case.id for case in self.session.project.unlabeled_cases()])
