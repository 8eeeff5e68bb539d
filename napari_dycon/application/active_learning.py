"""Which case to label next: one the network is unsure of, and unlike those labeled already.

Uncertainty alone would pick several scans that are hard in the same way. So cases are chosen one
after the other, each by the sum of two ranks: how unsure the newest prediction is, and how far the
scan lies from the nearest labeled or already chosen one in what the network sees
(``engine/inference/embedding.py``).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from napari_dycon import io
from napari_dycon.engine.evaluation import foreground_margin
from napari_dycon.project.store import Project

NOVELTY_WEIGHT = 1.0  # of the novelty's rank beside the uncertainty's
HIGH = 2 / 3  # ranks from here on are worth a word
MOST_IN_TURN = 100  # cases; for those after them one look at what was chosen has to do

BLOCK = 256  # labeled cases that are compared at a time


@dataclass(frozen=True)
class Suggestion:
    """A case to label, ``place`` 1 first; ``reason`` in words."""

    case: str
    place: int
    score: float | None  # mean uncertainty around the prediction, None before any prediction
    reason: str


@dataclass(frozen=True)
class Facts:
    """What a run found out about a scan, as far as suggestions need it."""

    score: float | None
    features: npt.NDArray[np.float64] | None


class Suggester:
    """Suggests, and keeps what it read while the files stay as they are; for any thread."""

    def __init__(self) -> None:
        self._facts: dict[Path, tuple[object, Facts]] = {}
        self._last: _Ranked | None = None
        self._lock = threading.Lock()

    def suggest(self, project: Project) -> list[Suggestion]:
        """Cases without a label, the one most worth labeling first.

        Cases that nothing is known of yet come last, in the project's order.
        """
        with self._lock:
            labeled = [case.id for case in project.labeled_cases()]
            done = set(labeled)
            open_cases = [c.id for c in project.cases if c.split == "train" and c.id not in done]
            newest = project.newest_predictions()
            scores = {case: self._score(project, newest.get(case), case) for case in open_cases}
            found: list[Suggestion] = []
            known = [case for case in open_cases if scores[case] is not None]
            if known:
                found = self._rank(project, known, [scores[case] or 0.0 for case in known], labeled)
            rest = [case for case in open_cases if scores[case] is None]
            return found + [
                Suggestion(case, place, None, "nothing is predicted for it yet")
                for place, case in enumerate(rest, start=len(found) + 1)
            ]

    def _rank(
        self, project: Project, cases: list[str], scores: list[float], labeled: Sequence[str]
    ) -> list[Suggestion]:
        uncertainty = np.array(scores, dtype=np.float64)
        features, known = self._features(project, cases, labeled)
        last = self._last
        if last is not None and last.is_of(cases, uncertainty, features, known):
            return last.found
        order, novelty = choose_in_turn(uncertainty, features, known)
        unsure = _ranks(uncertainty)
        found = [
            Suggestion(cases[i], place, scores[i], _reason(unsure[i], novelty[i]))
            for place, i in enumerate(order, start=1)
        ]
        self._last = _Ranked(cases, uncertainty, features, known, found)
        return found

    def _score(self, project: Project, run: str | None, case_id: str) -> float | None:
        if run is None:
            return None
        score = self._read(project, run, case_id).score
        return mean_uncertainty(project, run, case_id) if score is None else score

    def _features(
        self, project: Project, cases: Sequence[str], labeled: Sequence[str]
    ) -> tuple[npt.NDArray[np.float64] | None, npt.NDArray[np.float64]]:
        """Features of cases and of labeled ones as one run saw them, the newest that saw all."""
        for run in reversed(project.runs()):
            rows: list[npt.NDArray[np.float64]] = []
            for case in cases:
                row = self._read(project, run.id, case).features
                if row is None or len(row) != len(rows[0] if rows else row):
                    break
                rows.append(row)
            if len(rows) == len(cases):
                width = len(rows[0])
                known = (self._read(project, run.id, case).features for case in labeled)
                others = [row for row in known if row is not None and len(row) == width]
                return np.stack(rows), np.array(others, dtype=np.float64).reshape(-1, width)
        return None, np.zeros((0, 0))

    def _read(self, project: Project, run: str, case_id: str) -> Facts:
        path = project.case_metadata_path(run, case_id)
        try:
            state = path.stat()
        except OSError:
            return NO_FACTS
        stamp = state.st_mtime_ns, state.st_size, state.st_ino
        kept = self._facts.get(path)
        if kept is not None and kept[0] == stamp:
            return kept[1]
        facts = _sound(project.load_case_metadata(run, case_id))
        self._facts[path] = stamp, facts
        return facts


@dataclass(frozen=True)
class _Ranked:
    """What cases were ranked by, and how."""

    cases: list[str]
    uncertainty: npt.NDArray[np.float64]
    features: npt.NDArray[np.float64] | None
    known: npt.NDArray[np.float64]
    found: list[Suggestion]

    def is_of(
        self,
        cases: list[str],
        uncertainty: npt.NDArray[np.float64],
        features: npt.NDArray[np.float64] | None,
        known: npt.NDArray[np.float64],
    ) -> bool:
        same = self.cases == cases and np.array_equal(self.uncertainty, uncertainty)
        if not same or not np.array_equal(self.known, known):
            return False
        if features is None or self.features is None:
            return features is self.features
        return np.array_equal(self.features, features)


NO_FACTS = Facts(None, None)


def _sound(values: dict[str, Any]) -> Facts:
    score, features = values.get("score"), values.get("features")
    return Facts(
        float(score) if isinstance(score, (int, float)) else None,
        np.array(features, dtype=np.float64) if features else None,
    )


def suggestions(project: Project) -> list[Suggestion]:
    """Suggest once, as ``Suggester.suggest``."""
    return Suggester().suggest(project)


def case_score(project: Project, case_id: str) -> float | None:
    """Score of a case's newest prediction, the same that ``evaluate`` reports."""
    runs = project.predictions(case_id)
    if not runs:
        return None
    score = _sound(project.load_case_metadata(runs[0], case_id)).score
    return mean_uncertainty(project, runs[0], case_id) if score is None else score


def mean_uncertainty(project: Project, run: str, case_id: str) -> float | None:
    """Score of a prediction by its files, where the run did not write it down."""
    uncertainty = project.read_prediction(run, case_id, "uncertainty")
    if uncertainty is None:
        return None
    mask = io.read_label(project.prediction_path(run, case_id))
    return foreground_margin.mean_foreground_uncertainty(mask.array, uncertainty, mask.spacing_mm)


def choose_in_turn(
    uncertainty: npt.NDArray[np.float64],
    features: npt.NDArray[np.float64] | None,
    labeled: npt.NDArray[np.float64],
) -> tuple[list[int], npt.NDArray[np.float64]]:
    """Order in which to label, and how unlike the labeled ones each case is, as a rank.

    The first ``MOST_IN_TURN`` are chosen one after the other; the rest follow by what is then known
    of them, so that thousands of cases do not take the square of their number.

    Parameters
    ----------
    uncertainty : (N,)
    features : (N, F), or ``None`` where they are not known of all
    labeled : (L, F), of the cases that are labeled already
    """
    count = len(uncertainty)
    unsure = _ranks(uncertainty)
    novelty = np.zeros(count)
    if features is None:
        return np.argsort(-uncertainty, kind="stable").tolist(), novelty
    every = np.concatenate([features, labeled])
    scale = every.std(axis=0) + 1e-9
    own, theirs = features / scale, labeled / scale
    nearest = np.full(count, np.inf)
    for start in range(0, len(theirs), BLOCK):
        distances = cdist(own, theirs[start : start + BLOCK])
        nearest = np.minimum(nearest, distances.min(axis=1))
    if np.isfinite(nearest).all():
        novelty = _ranks(nearest)
    left, order = np.ones(count, dtype=bool), []
    for _ in range(min(count, MOST_IN_TURN)):
        ranking = _by_both(unsure, nearest, np.flatnonzero(left))
        order.append(int(ranking[0]))
        left[order[-1]] = False
        nearest = np.minimum(nearest, np.linalg.norm(own - own[order[-1]], axis=1))
    order += _by_both(unsure, nearest, np.flatnonzero(left)).tolist()
    return order, novelty


def _by_both(
    unsure: npt.NDArray[np.float64],
    nearest: npt.NDArray[np.float64],
    left: npt.NDArray[np.intp],
) -> npt.NDArray[np.intp]:
    """Those that are left by the sum of both ranks, the unsure first where that is equal."""
    ranks = np.zeros(len(left))
    if np.isfinite(nearest[left]).all():
        ranks = _ranks(nearest[left])
    both = unsure[left] + NOVELTY_WEIGHT * ranks
    return left[np.lexsort((left, -unsure[left], -both))]


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """0 for the smallest to 1 for the largest."""
    if len(values) < 2:
        return np.ones(len(values))
    ranks: npt.NDArray[np.float64] = np.argsort(np.argsort(values)) / (len(values) - 1)
    return ranks


def _reason(unsure: float, novelty: float) -> str:
    doubt = (
        "the network is unsure of it"
        if unsure >= HIGH
        else "the network is fairly sure of it"
        if unsure < 1 - HIGH
        else "the network is moderately sure of it"
    )
    if novelty >= HIGH:
        return f"{doubt}, and it is unlike the labeled scans"
    return doubt
