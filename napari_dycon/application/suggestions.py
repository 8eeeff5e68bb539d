"""Which case to label next: one the network is unsure of, and unlike those labelled already.

Uncertainty alone would pick several scans that are hard in the same way. So cases are chosen one
after the other, each by the sum of two ranks: how unsure the newest prediction is, and how far the
scan lies from the nearest labelled or already chosen one in what the network sees
(``engine/features.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_dycon.engine import band
from napari_dycon.project import formats
from napari_dycon.project.store import Project

NOVELTY_WEIGHT = 1.0  # of the novelty's rank beside the uncertainty's
HIGH = 2 / 3  # ranks from here on are worth a word


@dataclass(frozen=True)
class Suggestion:
    """A case to label, ``place`` 1 first; ``reason`` in words."""

    case: str
    place: int
    score: float | None  # mean uncertainty around the prediction, None before any prediction
    reason: str


def suggestions(project: Project) -> list[Suggestion]:
    """Cases without a label, the one most worth labelling first.

    Cases that nothing is known of yet come last, in the project's order.
    """
    open_cases = [case.id for case in project.unlabelled()]
    scores = {case: case_score(project, case) for case in open_cases}
    known = [case for case in open_cases if scores[case] is not None]
    found = []
    if known:
        uncertainty = np.array([scores[case] for case in known], dtype=np.float64)
        order, novelty = choose_in_turn(uncertainty, *_features(project, known))
        unsure = _ranks(uncertainty)
        found = [
            Suggestion(known[i], place, scores[known[i]], _reason(unsure[i], novelty[i]))
            for place, i in enumerate(order, start=1)
        ]
    rest = [case for case in open_cases if scores[case] is None]
    return found + [
        Suggestion(case, place, None, "nothing is predicted for it yet")
        for place, case in enumerate(rest, start=len(found) + 1)
    ]


def case_score(project: Project, case_id: str) -> float | None:
    """Score of a case's newest prediction, the same that ``evaluate`` reports."""
    runs = project.predictions(case_id)
    if not runs:
        return None
    score = project.read_facts(runs[0], case_id).get("score")
    if isinstance(score, (int, float)):
        return float(score)
    uncertainty = project.read_prediction(runs[0], case_id, "uncertainty")
    if uncertainty is None:
        return None
    mask = formats.read_label(project.prediction_path(runs[0], case_id))
    return band.case_score(mask.array, uncertainty, mask.spacing_mm)


def choose_in_turn(
    uncertainty: npt.NDArray[np.float64],
    features: npt.NDArray[np.float64] | None,
    labelled: npt.NDArray[np.float64],
) -> tuple[list[int], npt.NDArray[np.float64]]:
    """Order in which to label, and how unlike the labelled ones each case is, as a rank.

    Parameters
    ----------
    uncertainty : (N,)
    features : (N, F), or ``None`` where they are not known of all
    labelled : (L, F), of the cases that are labelled already
    """
    count = len(uncertainty)
    unsure = _ranks(uncertainty)
    novelty = np.zeros(count)
    if features is None:
        return np.argsort(-uncertainty, kind="stable").tolist(), novelty
    every = np.concatenate([features, labelled])
    scale = every.std(axis=0) + 1e-9
    own, theirs = features / scale, labelled / scale
    nearest = np.full(count, np.inf)
    for vector in theirs:
        nearest = np.minimum(nearest, np.linalg.norm(own - vector, axis=1))
    if np.isfinite(nearest).all():
        novelty = _ranks(nearest)
    left, order = list(range(count)), []
    while left:
        ranks = np.zeros(count)
        if np.isfinite(nearest[left]).all():
            ranks[left] = _ranks(nearest[left])
        best = max(left, key=lambda i: (unsure[i] + NOVELTY_WEIGHT * ranks[i], unsure[i]))
        order.append(best)
        left.remove(best)
        nearest = np.minimum(nearest, np.linalg.norm(own - own[best], axis=1))
    return order, novelty


def _features(
    project: Project, cases: Sequence[str]
) -> tuple[npt.NDArray[np.float64] | None, npt.NDArray[np.float64]]:
    """Features of cases and of labelled ones as one run saw them, the newest that saw them all."""
    labelled = [case.id for case in project.labelled("train")]
    for run in reversed(project.runs()):
        rows = [project.read_facts(run.id, case).get("features") for case in cases]
        width = len(rows[0] or ())
        if width and all(row is not None and len(row) == width for row in rows):
            known = [project.read_facts(run.id, case).get("features") for case in labelled]
            found = np.array([row for row in known if row and len(row) == width], dtype=np.float64)
            return np.array(rows, dtype=np.float64), found.reshape(-1, width)
    return None, np.zeros((0, 0))


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
        return f"{doubt}, and it is unlike the labelled scans"
    return doubt
