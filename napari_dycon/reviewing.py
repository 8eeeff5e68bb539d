"""Predictions of the case in view: made, read again, gone through, accepted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dycon import jobs
from napari_dycon.case_view import CaseView, load_prediction
from napari_dycon.errors import BusyError, UserError

if TYPE_CHECKING:
    from napari_dycon.session import Session

Event = dict[str, Any]
Place = tuple[float, float, float]


class Reviewing:
    """What the session does with predictions."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.predicting = False
        # Places that were looked at, of each case's prediction by each run.
        self._visited: dict[tuple[str, str | None], set[Place]] = {}

    def predict(self, ids: Sequence[str], run: str | None) -> None:
        """Predict cases; see ``Session.predict``."""
        session = self._session
        project = session.need_project()
        if self.predicting:
            raise BusyError("A prediction is at work already; wait until it is done.")
        if not ids:
            raise UserError("There is no case to predict: every one is labelled.")
        chosen = project.run(run)

        def each(event: Event) -> None:
            if session.project is not project:
                return
            session.event.emit(event)
            if event.get("event") == "predicted":
                self.refresh(str(event["case"]))
            elif event.get("event") in ("failed", "predicted all"):
                self.predicting = False
                session.cases_changed.emit()
                if event["event"] == "failed":
                    session.message.emit("error", str(event["message"]))

        self.predicting = True
        events = jobs.predict_process(project.path, chosen.id, [project.case(i).id for i in ids])
        session.follow(f"Predicting with {chosen.id}", events, each)

    def refresh(self, case_id: str) -> None:
        """Read the newest prediction of the case in view again."""
        session = self._session
        view, project = session.view, session.project
        if view is None or project is None or view.id != case_id:
            return

        def done(found: CaseView) -> None:
            if session.view is view:
                view.run, view.prediction = found.run, found.prediction
                view.uncertainty, view.disagreement = found.uncertainty, found.disagreement
                view.spots, view.floors = found.spots, found.floors
                session.prediction_changed.emit(view)

        copy = dataclasses.replace(view)
        session.background.run(lambda: load_prediction(project, copy), done, session.tell)

    def accept(self, classes: Sequence[int] | None) -> int:
        """Make the prediction the label; see ``Session.accept_prediction``."""
        session = self._session
        view = session.need_view()
        if view.prediction is None:
            raise UserError(f"Case {view.id} has no prediction yet. Train, or press Predict first.")
        if classes is None:
            new = view.prediction.copy()
        else:
            new = view.label.copy()
            new[np.isin(view.label, classes)] = 0
            chosen = np.isin(view.prediction, classes)
            new[chosen] = view.prediction[chosen]
        changed = session.set_label(new)
        session.flush()
        return changed
