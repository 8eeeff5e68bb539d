"""Active learning: suggest cases with high uncertainty that differ from the labeled ones.

Uncertainty alone would select several scans that are difficult in the same way. Cases are therefore
selected one after the other by the sum of two ranks: the uncertainty of the newest prediction, and
the distance to the nearest labeled or already selected scan in the embedding of the network
(``engine/inference/embedding.py``).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_dycon import io
from napari_dycon.application.candidate_ranking import compute_ranks, rank_candidates
from napari_dycon.application.state import AppState
from napari_dycon.engine.evaluation import foreground_margin
from napari_dycon.project.prediction_store import PredictionMetadata
from napari_dycon.project.store import Project

HIGH_RANK = 2 / 3  # ranks from here on count as high


@dataclass(frozen=True)
class Suggestion:
    """A case to label, ``rank`` 1 first, with a ``reason`` for the user."""

    case: str
    rank: int
    score: float | None  # mean uncertainty around the prediction, None before any prediction
    reason: str


@dataclass(frozen=True)
class CaseMetadata:
    """Score and features of a scan computed by a run."""

    score: float | None
    features: npt.NDArray[np.float64] | None


class Suggester:
    """Ranks cases and caches metadata while the files are unchanged; thread-safe."""

    def __init__(self) -> None:
        self._metadata: dict[Path, tuple[object, CaseMetadata]] = {}
        self._last_ranking: _Ranking | None = None
        self._lock = threading.Lock()

    def suggest(self, project: Project) -> list[Suggestion]:
        """Return unlabeled cases, the highest priority first.

        Cases without a prediction come last, in the project's order.
        """
        with self._lock:
            labeled = [case.id for case in project.labeled_cases()]
            labeled_ids = set(labeled)
            candidates = [
                c.id for c in project.cases if c.split == "train" and c.id not in labeled_ids
            ]
            newest_runs = project.predictions.newest_run_ids()
            scores = {
                case: self._read_score(project, newest_runs.get(case), case) for case in candidates
            }
            suggestions: list[Suggestion] = []
            predicted = [case for case in candidates if scores[case] is not None]
            if predicted:
                suggestions = self._rank_cases(
                    project, predicted, [scores[case] or 0.0 for case in predicted], labeled
                )
            unpredicted = [case for case in candidates if scores[case] is None]
            return suggestions + [
                Suggestion(case, rank, None, "no prediction yet")
                for rank, case in enumerate(unpredicted, start=len(suggestions) + 1)
            ]

    def _rank_cases(
        self, project: Project, cases: list[str], scores: list[float], labeled: Sequence[str]
    ) -> list[Suggestion]:
        uncertainty = np.array(scores, dtype=np.float64)
        features, labeled_features = self._read_features(project, cases, labeled)
        last = self._last_ranking
        if last is not None and last.matches(cases, uncertainty, features, labeled_features):
            return last.suggestions
        order, novelty = rank_candidates(uncertainty, features, labeled_features)
        uncertainty_ranks = compute_ranks(uncertainty)
        suggestions = [
            Suggestion(
                cases[i], rank, scores[i], _describe_reason(uncertainty_ranks[i], novelty[i])
            )
            for rank, i in enumerate(order, start=1)
        ]
        self._last_ranking = _Ranking(cases, uncertainty, features, labeled_features, suggestions)
        return suggestions

    def _read_score(self, project: Project, run: str | None, case_id: str) -> float | None:
        if run is None:
            return None
        score = self._read_metadata(project, run, case_id).score
        return compute_mean_uncertainty(project, run, case_id) if score is None else score

    def _read_features(
        self, project: Project, cases: Sequence[str], labeled: Sequence[str]
    ) -> tuple[npt.NDArray[np.float64] | None, npt.NDArray[np.float64]]:
        """Features of candidates and labeled cases from the newest run that has them for all."""
        for run in reversed(project.runs.list()):
            rows: list[npt.NDArray[np.float64]] = []
            for case in cases:
                row = self._read_metadata(project, run.id, case).features
                if row is None or len(row) != len(rows[0] if rows else row):
                    break
                rows.append(row)
            if len(rows) == len(cases):
                n_features = len(rows[0])
                all_labeled = (
                    self._read_metadata(project, run.id, case).features for case in labeled
                )
                labeled_rows = [
                    row for row in all_labeled if row is not None and len(row) == n_features
                ]
                return np.stack(rows), np.array(labeled_rows, dtype=np.float64).reshape(
                    -1, n_features
                )
        return None, np.zeros((0, 0))

    def _read_metadata(self, project: Project, run: str, case_id: str) -> CaseMetadata:
        path = project.predictions.metadata_path(run, case_id)
        try:
            file_stat = path.stat()
        except OSError:
            return NO_METADATA
        file_version = file_stat.st_mtime_ns, file_stat.st_size, file_stat.st_ino
        cached = self._metadata.get(path)
        if cached is not None and cached[0] == file_version:
            return cached[1]
        metadata = _convert_metadata(project.predictions.read_metadata(run, case_id))
        self._metadata[path] = file_version, metadata
        return metadata


@dataclass(frozen=True)
class _Ranking:
    """Inputs and result of the last ranking."""

    cases: list[str]
    uncertainty: npt.NDArray[np.float64]
    features: npt.NDArray[np.float64] | None
    labeled_features: npt.NDArray[np.float64]
    suggestions: list[Suggestion]

    def matches(
        self,
        cases: list[str],
        uncertainty: npt.NDArray[np.float64],
        features: npt.NDArray[np.float64] | None,
        labeled_features: npt.NDArray[np.float64],
    ) -> bool:
        same = self.cases == cases and np.array_equal(self.uncertainty, uncertainty)
        if not same or not np.array_equal(self.labeled_features, labeled_features):
            return False
        if features is None or self.features is None:
            return features is self.features
        return np.array_equal(self.features, features)


NO_METADATA = CaseMetadata(None, None)


def _convert_metadata(metadata: PredictionMetadata) -> CaseMetadata:
    features = metadata.features
    return CaseMetadata(metadata.score, np.array(features, dtype=np.float64) if features else None)


class ActiveLearning:
    """Suggestions for the open project.

    Attributes
    ----------
    suggester : for the open project; replaced when the project is closed
    """

    def __init__(self, state: AppState) -> None:
        self._state = state
        self.suggester = Suggester()
        state.project_closed.connect(self._on_project_closed)

    def list_suggestions(self) -> list[Suggestion]:
        """Return unlabeled cases with scores and reasons, the highest priority first."""
        return self.suggester.suggest(self._state.require_project())

    def get_case_score(self, case_id: str) -> float | None:
        """Return the mean uncertainty of a case's newest prediction; ``None`` if there is none."""
        return read_case_score(self._state.require_project(), case_id)

    def _on_project_closed(self) -> None:
        self.suggester = Suggester()


def suggest_cases(project: Project) -> list[Suggestion]:
    """Suggest once, as ``Suggester.suggest``."""
    return Suggester().suggest(project)


def read_case_score(project: Project, case_id: str) -> float | None:
    """Return the score of a case's newest prediction, the same that ``evaluate`` reports."""
    runs = project.predictions.list_run_ids(case_id)
    if not runs:
        return None
    score = project.predictions.read_metadata(runs[0], case_id).score
    return compute_mean_uncertainty(project, runs[0], case_id) if score is None else score


def compute_mean_uncertainty(project: Project, run: str, case_id: str) -> float | None:
    """Compute the score of a prediction from its files, for runs that did not record it."""
    uncertainty = project.predictions.read(run, case_id, "uncertainty")
    if uncertainty is None:
        return None
    mask = io.read_label(project.predictions.path(run, case_id))
    return foreground_margin.mean_foreground_uncertainty(mask.array, uncertainty, mask.spacing_mm)


def _describe_reason(uncertainty_rank: float, novelty_rank: float) -> str:
    confidence = (
        "high uncertainty"
        if uncertainty_rank >= HIGH_RANK
        else "low uncertainty"
        if uncertainty_rank < 1 - HIGH_RANK
        else "moderate uncertainty"
    )
    if novelty_rank >= HIGH_RANK:
        return f"{confidence}, and the scan differs from the labeled ones"
    return confidence
