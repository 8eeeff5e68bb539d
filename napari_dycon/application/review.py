"""Predictions of the case in view: made, read again, gone through, accepted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_dycon.application import engine_process
from napari_dycon.application.active_case import CaseView, load_prediction
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
        self._visited: dict[tuple[str, str | None], set[tuple[int, int, int]]] = {}
        self._at = -1  # number of the place in view
        session.case_shown.connect(self._case_changed)

    def predict(self, ids: Sequence[str], run: str | None) -> None:
        """Predict cases; see ``Session.predict``."""
        session = self._session
        project = session.need_project()
        project.require_writable()
        if self.predicting:
            raise BusyError("A prediction is at work already; wait until it is done.")
        if not ids:
            raise UserError("There is no case to predict: every one is labeled.")
        chosen = project.get_run(run)

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
        events = engine_process.predict_process(
            project.path, chosen.id, [project.get_case(i).id for i in ids]
        )
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
                self._at = -1
                session.transfers.tell_notes(found.notes)
                session.prediction_changed.emit(view)

        copy = dataclasses.replace(view, notes=[])
        session.background.run(lambda: load_prediction(project, copy), done, session.tell)

    # ---- Uncertain places --------------------------------------------------------------------

    def go_on(self, step: int) -> Place | None:
        """Next place that was not looked at yet (``step`` 1), or the one before (-1), in mm.

        Places are ranked by their mass. Once all were seen, they come again in order.
        """
        view = self._session.need_view()
        count = len(view.spots)
        if not count:
            return None
        seen = self._seen(view)
        number = self._at if 0 <= self._at < count else -1
        if step < 0:
            number = (number - 1) % count if number >= 0 else count - 1
        else:
            order = [(number + 1 + turn) % count for turn in range(count)]
            number = next((n for n in order if view.spots[n].center not in seen), order[0])
        self._at = number
        seen.add(view.spots[number].center)
        z, y, x = (
            c * s for c, s in zip(view.spots[number].center, view.image.spacing_mm, strict=True)
        )
        self._session.place_visited.emit(number)
        return z, y, x

    def places(self) -> tuple[int, int, int]:
        """Number of the place in view (1 for the first, 0 for none), how many, how many seen."""
        view = self._session.view
        if view is None:
            return 0, 0, 0
        seen = self._seen(view)
        visited = sum(spot.center in seen for spot in view.spots)
        return (self._at + 1 if self._at < len(view.spots) else 0), len(view.spots), visited

    def _seen(self, view: CaseView) -> set[tuple[int, int, int]]:
        return self._visited.setdefault((view.id, view.run), set())

    def _case_changed(self, _: object) -> None:
        self._at = -1

    # ---- Accepting ---------------------------------------------------------------------------

    def accept(
        self,
        classes: Sequence[int] | None,
        slice_: tuple[int, int] | None,
        component: tuple[int, int, int] | None,
    ) -> int:
        """Make the prediction the label; see ``Session.accept_prediction``."""
        session = self._session
        view = session.need_view()
        prediction = view.prediction
        if prediction is None:
            raise UserError(f"Case {view.id} has no prediction yet. Train, or press Predict first.")
        where: tuple[Any, ...] = (slice(None),) * 3
        if slice_ is not None:
            axis, index = slice_
            where = tuple(index if a == axis else slice(None) for a in range(3))
        new = view.label.copy()
        mine, theirs = new[where], prediction[where]
        if component is not None:
            piece = _piece(prediction, component)
            chosen = piece[where]
        elif classes is None:
            chosen = np.ones(theirs.shape, bool)
        else:
            mine[np.isin(mine, classes)] = 0
            chosen = np.isin(theirs, classes)
        mine[chosen] = theirs[chosen]
        new[where] = mine
        changed = session.set_label(new)
        session.flush()
        return changed


def _piece(prediction: npt.NDArray[np.uint8], voxel: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
    """Connected piece of the predicted structure that holds a voxel."""
    inside = all(0 <= v < n for v, n in zip(voxel, prediction.shape, strict=True))
    value = int(prediction[voxel]) if inside else 0
    if not value:
        raise UserError("There is no predicted structure at that place. Point at one.")
    pieces, _ = ndimage.label(prediction == value, structure=np.ones((3, 3, 3)))
    piece: npt.NDArray[np.bool_] = pieces == pieces[voxel]
    return piece
