"""A report of a project: one page with figures and pictures, and the figures as CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_dycon.core.atomic import ensure_dir, write_bytes, write_text
from napari_dycon.core.types import ItemProgressCallback
from napari_dycon.errors import UserError
from napari_dycon.exports.report.figures import draw_case
from napari_dycon.exports.report.html import render_page
from napari_dycon.exports.report.statistics import (
    CaseStatistics,
    classify_label_use,
    compute_statistics,
    load_case_data,
    to_csv,
)
from napari_dycon.project.models import Case
from napari_dycon.project.runs.run import Run
from napari_dycon.project.store import Project


def write_report(
    project: Project,
    out: Path | str,
    *,
    run: str | None = None,
    cases: Sequence[str] | None = None,
    on_progress: ItemProgressCallback | None = None,
) -> Path:
    """Write ``report.html`` and ``cases.csv``; what cannot be read of a case is told in its row.

    The page holds volumes, agreement of labels and predictions, uncertainty, and slices of each
    case. It names no file and no date, and loads nothing from elsewhere.

    Parameters
    ----------
    out : folder; made if it is missing, files of these names in it are replaced
    run : whose predictions; by default the newest run that predicted one of the cases, and if
        there is none the report is of the labels alone
    cases : ids; by default all
    progress : called after each case with cases done, cases in all, and the case's id

    Returns
    -------
    path of ``report.html``

    Raises
    ------
    UserError
        There is no such case, or no case at all.
    ProjectError
        There is no such run, or the folder cannot be written to.
    """
    out = Path(out)
    selected = project.cases if cases is None else [project.get_case(case_id) for case_id in cases]
    if not selected:
        raise UserError(f"{project.name} has no case to report on. Add scans first.")
    used_run = project.get_run(run) if run is not None else _find_newest_run(project, selected)
    uses = {} if used_run is None else classify_label_use(project, used_run)
    statistics: list[CaseStatistics] = []
    pictures: dict[str, str] = {}
    ensure_dir(out)
    for number, case in enumerate(selected, start=1):
        data = load_case_data(project, case, used_run)  # one case in memory at a time
        statistics.append(compute_statistics(data, project.classes, uses.get(case.id)))
        if data.scan is not None:
            pictures[case.id] = draw_case(data, project.classes, f"scan-{number}")
        if on_progress:
            on_progress(number, len(selected), case.id)
    # With its mark, without which spreadsheets do not take a file for UTF-8.
    write_bytes(out / "cases.csv", to_csv(statistics).encode("utf-8-sig"))
    path = out / "report.html"
    write_text(
        path, render_page(project, used_run, statistics, _summarize_by_use(statistics), pictures)
    )
    return path


def _find_newest_run(project: Project, cases: Sequence[Case]) -> Run | None:
    for run in reversed(project.runs()):
        if any(project.prediction_path(run.id, case.id).exists() for case in cases):
            return run
    return None


def _summarize_by_use(statistics: Sequence[CaseStatistics]) -> Mapping[str, Mapping[str, Any]]:
    """For each use of a label the means over its completely labeled and predicted cases."""
    scores_by_use: dict[str, dict[str, Mapping[str, Any]]] = {}
    for stats in statistics:
        if stats.use is not None and stats.scores is not None:
            scores_by_use.setdefault(stats.use, {})[stats.case.id] = stats.scores
    if not scores_by_use:
        return {}
    from napari_dycon.engine.evaluation.segmentation_metrics import (
        summarize,  # torch, only when it is needed
    )

    return {use: summarize(scores) for use, scores in scores_by_use.items()}
