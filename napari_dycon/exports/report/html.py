"""The report as one self-contained, printable HTML page.

The page is rendered from ``report.html.jinja``. Names of a project, its classes, channels and cases
may contain any characters; the template escapes every value. The page's content security policy
forbids scripts and external resources.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from napari_dycon import __version__
from napari_dycon.core.colormaps import (
    DEFAULT_THRESHOLD,
    MAX_TINTED_FRACTION,
    UNCERTAINTY_COLORMAP,
)
from napari_dycon.core.volumes import format_ml
from napari_dycon.core.wording import METHOD_NAMES, format_count
from napari_dycon.errors import ProjectError
from napari_dycon.exports.report.figures import UNCERTAINTY_OPACITY, Picture
from napari_dycon.exports.report.statistics import EXTENT_LABELS, CaseStatistics
from napari_dycon.project.models import Status
from napari_dycon.project.runs.run import Run
from napari_dycon.project.store import Project

METRIC_TITLES = (
    *("label volume (ml)", "predicted volume (ml)"),
    *("Dice", "Jaccard", "HD95 (mm)", "ASD (mm)"),
)
MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August"),
    *("September", "October", "November", "December"),
)
LABEL_USE_TITLES = {
    "validation": "Validation",
    "labeled later": "Labeled later",
    "training": "Training",
}


def render_page(
    project: Project,
    runs: Sequence[Run],
    statistics: Sequence[CaseStatistics],
    summaries: Mapping[str, Mapping[str, Any]],
    pictures: Mapping[str, Picture],
) -> str:
    """Render the page.

    Parameters
    ----------
    runs : runs whose predictions are reported
    statistics : statistics of all cases of the report
    summaries : result of ``segmentation_metrics.summarize`` for each use of a label (see
        ``LABEL_USE_TITLES``)
    pictures : result of ``figures.draw_case`` for the id of each case with a scan
    """
    status_counts = Counter(stats.case.status for stats in statistics)
    structures = [row for stats in statistics for row in stats.structures]
    return _load_template().render(
        version=__version__,
        style=_read_style(),
        project=project,
        date=_format_date(date.today()),
        run_descriptions=_describe_runs(runs, statistics),
        unpredicted_validation=_find_unpredicted_validation(statistics),
        has_several_runs=len(runs) > 1,
        statistics=statistics,
        case_numbers={stats.case.id: number for number, stats in enumerate(statistics)},
        pictures=pictures,
        status_counts={status.display_name: status_counts[status] for status in Status},
        summaries=[
            (title, summaries[use]) for use, title in LABEL_USE_TITLES.items() if use in summaries
        ],
        metric_titles=METRIC_TITLES,
        format_ml=format_ml,
        extent_labels=EXTENT_LABELS,
        default_threshold=DEFAULT_THRESHOLD,
        max_tinted_fraction=MAX_TINTED_FRACTION,
        uncertainty_gradient=_make_uncertainty_gradient(),
        has_partial_labels=any(stats.extent == "partial" for stats in statistics),
        has_scores=any(stats.scores is not None for stats in statistics),
        has_uncertainty=any(stats.score is not None for stats in statistics),
        has_missed_structures=any(row.missed for row in structures),
        has_predictions=any(stats.run is not None for stats in statistics),
        has_accepted=any(stats.is_accepted for stats in statistics),
    )


def _load_template() -> Template:
    source = files("napari_dycon.exports.report") / "report.html.jinja"
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.from_string(source.read_text(encoding="utf-8"))


def _read_style() -> str:
    return (files("napari_dycon") / "resources" / "report.css").read_text(encoding="utf-8")


def _describe_runs(runs: Sequence[Run], statistics: Sequence[CaseStatistics]) -> list[str]:
    """Describe where the predictions come from, one sentence per run."""
    counts = Counter(stats.run for stats in statistics)
    return [_describe_run(run, counts[run.id]) for run in runs]


def _describe_run(run: Run, n_cases: int) -> str:
    text = f"{format_count(n_cases, 'case')} predicted by run {run.id}"
    try:
        config = run.read_config()
    except ProjectError:  # the predictions are there all the same
        return text + "."
    if method := config.get("method"):
        text += f", method {METHOD_NAMES.get(str(method), method)}"
    if (step := run.read_metrics().step) is not None:
        text += f", {step} steps"
    if start := config.get("init_from"):
        text += f", initialized from {start}"
    return text + "."


def _find_unpredicted_validation(statistics: Sequence[CaseStatistics]) -> list[str]:
    """List validation cases without a prediction, if other cases have one."""
    if all(stats.run is None for stats in statistics):
        return []
    return [
        stats.case.id
        for stats in statistics
        if stats.case.split == "validation" and stats.run is None
    ]


def _format_date(day: date) -> str:
    """Format a date in English, independently of the system's language."""
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


def _make_uncertainty_gradient() -> str:
    """Build the color stops of a CSS gradient from the threshold to 1, as in the images."""
    return ", ".join(
        f"rgba({round(r * 255)}, {round(g * 255)}, {round(b * 255)}, {a * UNCERTAINTY_OPACITY:.3g})"
        for r, g, b, a in UNCERTAINTY_COLORMAP
    )
