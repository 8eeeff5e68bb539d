"""Report of a project: an HTML page with results and images, and the results as CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_dycon.core.atomic import ensure_dir, write_bytes, write_text
from napari_dycon.core.types import ItemProgressCallback
from napari_dycon.errors import UserError
from napari_dycon.exports.csv_table import encode_csv
from napari_dycon.exports.report.figures import Picture, draw_case
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

CSV_NAME = "cases.csv"


def write_report(
    project: Project,
    out: Path | str,
    *,
    run: str | None = None,
    cases: Sequence[str] | None = None,
    on_progress: ItemProgressCallback | None = None,
) -> Path:
    """Write ``report.html`` and ``cases.csv``; files that cannot be read are noted in their row.

    The page contains volumes, agreement of labels and predictions, uncertainty, and slices of each
    case. Of each case, the newest prediction is reported. The page contains no file names and no
    dates except that of the report, and loads no external resources.

    Parameters
    ----------
    out : output folder; created if missing, existing files of these names are replaced
    run : run whose predictions are reported; by default, of each case, the newest that predicted
        it. Without a prediction, the report covers labels only
    cases : case ids; by default all
    on_progress : called after each case with the number of cases done, their total, and the case id

    Returns
    -------
    Path of ``report.html``.

    Raises
    ------
    UserError
        A case does not exist, or the project has no cases.
    ProjectError
        The run does not exist, or the folder is not writable.
    """
    out = Path(out)
    selected = project.cases if cases is None else [project.get_case(case_id) for case_id in cases]
    if not selected:
        raise UserError(f"{project.name} has no cases to report. Add scans first.")
    runs = _find_runs(project, selected, run)
    uses = {one.id: classify_label_use(project, one) for one in set(runs.values())}
    statistics: list[CaseStatistics] = []
    pictures: dict[str, Picture] = {}
    ensure_dir(out)
    for number, case in enumerate(selected, start=1):
        used_run = runs.get(case.id)
        data = load_case_data(project, case, used_run)  # one case in memory at a time
        use = None if used_run is None else uses[used_run.id].get(case.id)
        statistics.append(compute_statistics(data, project.classes, use))
        if data.scan is not None:
            pictures[case.id] = draw_case(data, project.classes, f"scan-{number}")
        if on_progress:
            on_progress(number, len(selected), case.id)
    write_bytes(out / CSV_NAME, encode_csv(to_csv(statistics)))
    path = out / "report.html"
    used_ids = {stats.run for stats in statistics}
    used_runs = [one for one in project.runs.list() if one.id in used_ids]
    summaries = _summarize_by_use(statistics)
    write_text(path, render_page(project, used_runs, statistics, summaries, pictures))
    return path


def _find_runs(project: Project, cases: Sequence[Case], run: str | None) -> dict[str, Run]:
    """Find the run whose prediction of each case is reported; without prediction, none."""
    if run is not None:
        chosen = project.runs.get(run)
        return {case.id: chosen for case in cases}
    runs = {one.id: one for one in project.runs.list()}
    newest = project.predictions.newest_run_ids()
    return {case.id: runs[newest[case.id]] for case in cases if newest.get(case.id) in runs}


def _summarize_by_use(statistics: Sequence[CaseStatistics]) -> Mapping[str, Mapping[str, Any]]:
    """Summarize the scores of fully annotated, predicted cases by the use of their labels."""
    scores_by_use: dict[str, dict[str, Mapping[str, Any]]] = {}
    for stats in statistics:
        if stats.use is not None and stats.scores is not None:
            scores_by_use.setdefault(stats.use, {})[stats.case.id] = stats.scores
    if not scores_by_use:
        return {}
    from napari_dycon.engine.evaluation.segmentation_metrics import (
        summarize,  # imports torch
    )

    return {use: summarize(scores) for use, scores in scores_by_use.items()}
