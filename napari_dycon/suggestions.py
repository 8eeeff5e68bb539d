"""Which case to label next: the one that the newest predictions are least sure of."""

from __future__ import annotations

from napari_dycon.engine import band
from napari_dycon.project import formats
from napari_dycon.project.store import Project


def suggestions(project: Project) -> list[str]:
    """Cases without a label, the least sure one first.

    Cases that nothing is known of yet come last, in the project's order.
    """
    scores = {case.id: case_score(project, case.id) for case in project.unlabelled()}
    known = {case: score for case, score in scores.items() if score is not None}
    return [*sorted(known, key=lambda case: -known[case]), *(c for c in scores if c not in known)]


def case_score(project: Project, case_id: str) -> float | None:
    """Score of a case's newest prediction, the same that ``evaluate`` reports."""
    runs = project.predictions(case_id)
    if not runs:
        return None
    uncertainty = project.read_prediction(runs[0], case_id, "uncertainty")
    if uncertainty is None:
        return None
    mask = formats.read_label(project.prediction_path(runs[0], case_id))
    return band.case_score(mask.array, uncertainty, mask.spacing_mm)
