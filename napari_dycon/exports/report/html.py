"""The report as one HTML page that opens from the disk, prints, and needs nothing else.

Whatever a project names (itself, its classes, channels and cases) may hold any letters and is
escaped. The page forbids itself scripts and anything from elsewhere.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from napari_dycon import __version__
from napari_dycon.core.colormaps import UNCERTAINTY_COLORMAP
from napari_dycon.exports.report.figures import UNCERTAINTY_OPACITY
from napari_dycon.exports.report.statistics import (
    EXTENT_LABELS,
    CaseStatistics,
    StructureStatistics,
)
from napari_dycon.project.models import ClassInfo, Status
from napari_dycon.project.runs.run import Run
from napari_dycon.project.store import Project

MISSING = "–"
CONTENT_SECURITY_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
COLUMNS = ("label ml", "prediction ml", "Dice", "Jaccard", "HD95 mm", "ASD mm")
MEAN_METRICS = (
    ("reference_volume_ml", ".3f"),
    ("volume_ml", ".3f"),
    ("dice", ".3f"),
    ("jaccard", ".3f"),
    ("hd95_mm", ".2f"),
    ("asd_mm", ".2f"),
)
LABEL_USE_TITLES = {
    "validation": "Kept for validation",
    "labeled since": "Labeled since",
    "learned from": "Learned from",
}


def render_page(
    project: Project,
    run: Run | None,
    statistics: Sequence[CaseStatistics],
    summaries: Mapping[str, Mapping[str, Any]],
    pictures: Mapping[str, str],
) -> str:
    """Put the page together.

    Parameters
    ----------
    figures : of all cases of the report
    summaries : for each use of a label (see ``LABEL_USE_TITLES``) what ``metrics.summarize``
    returned
    pictures : for the ids of cases with a scan, an ``svg`` element
    """
    style = (files("napari_dycon") / "resources" / "report.css").read_text(encoding="utf-8")
    name = html.escape(project.name)
    body = [
        f"<h1>{name}</h1>",
        f'<p class="soft">{_describe_case_count(statistics)}. {_describe_run(run)}</p>',
        _render_project_tables(project, statistics),
        _render_mean_metrics(summaries, project.classes),
        _render_cases(statistics, pictures),
        _render_interpretation(statistics),
        _render_figures(statistics, pictures),
        f'<p class="soft">Made with napari-dycon {__version__}. Not for diagnosis.</p>',
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_SECURITY_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def _describe_case_count(statistics: Sequence[CaseStatistics]) -> str:
    count = len(statistics)
    return f"{count} case{'' if count == 1 else 's'}"


def _describe_run(run: Run | None) -> str:
    if run is None:
        return "No predictions: this report is of the labels alone."
    config, metrics = run.read_config(), run.read_metrics()
    text = f"Predictions of run {html.escape(run.id)}, method {html.escape(run.method)}"
    if (steps := metrics.get("step")) is not None:
        text += f", {int(steps)} steps"
    if start := config.get("init_from"):
        text += f", continued from {html.escape(str(start))}"
    return text + "."


def _render_project_tables(project: Project, statistics: Sequence[CaseStatistics]) -> str:
    counts = Counter(stats.case.status for stats in statistics)
    by_status = [
        [_render_text_cell(status.display_name), _render_number_cell(str(counts[status]))]
        for status in Status
    ]
    classes = [
        [
            f"<td>{_render_swatch(info.color)}{html.escape(info.name)}</td>",
            _render_number_cell(str(info.value)),
        ]
        for info in project.classes
    ]
    channels = [[_render_text_cell(channel)] for channel in project.channels]
    return (
        '<div class="facts">'
        + _render_table(["status", "cases"], [by_status])
        + _render_table(["class", "value"], [classes])
        + (_render_table(["channel"], [channels]) if len(channels) > 1 else "")
        + "</div>"
    )


def _render_mean_metrics(
    summaries: Mapping[str, Mapping[str, Any]], classes: Sequence[ClassInfo]
) -> str:
    if not summaries:
        return ""
    groups = []
    for use, title in LABEL_USE_TITLES.items():
        if (summary := summaries.get(use)) is None:
            continue
        rows: list[list[str]] = []
        for info in classes:
            metrics = summary["classes"][str(info.value)]
            title_cell = [f'<td rowspan="{len(classes)}">{title}</td>'] if not rows else []
            count_cell = [f'<td class="number" rowspan="{len(classes)}">{summary["cases"]}</td>']
            rows.append(
                [
                    *title_cell,
                    *(count_cell if title_cell else []),
                    _render_text_cell(info.name),
                    *(
                        _render_number_cell(format(metrics[key]["mean"], format_spec))
                        for key, format_spec in MEAN_METRICS
                    ),
                    _render_number_cell(str(metrics["missed"])),
                ]
            )
        groups.append(rows)
    header = ["label in this run", "cases", "class", *COLUMNS, "missed"]
    return (
        "<h2>Means over completely labeled cases</h2>"
        + _render_table(header, groups)
        + '<p class="soft">Only cases kept for validation tell how well new scans are segmented. '
        "A label that the run learned from, or that was made by correcting its prediction, agrees "
        "better than a new one would.</p>"
    )


def _render_cases(statistics: Sequence[CaseStatistics], pictures: Mapping[str, str]) -> str:
    groups = []
    for number, stats in enumerate(statistics):
        n_rows = len(stats.structures) + len(stats.notes)
        name = html.escape(stats.case.id)
        if stats.case.id in pictures:
            name = f'<a href="#case-{number}">{name}</a>'
        label = EXTENT_LABELS[stats.extent] + (f", {stats.use}" if stats.use else "")
        shared = [
            f'<td class="text" rowspan="{n_rows}">{name}</td>',
            f'<td rowspan="{n_rows}">{html.escape(stats.case.status.display_name)}</td>',
            f'<td rowspan="{n_rows}">{html.escape(label)}</td>',
        ]
        score = f'<td class="number" rowspan="{n_rows}">{_format_number(stats.score, ".3f")}</td>'
        rows: list[list[str]] = []
        for row in stats.structures:
            cells = [_render_text_cell(row.info.name), *_render_metric_cells(row)]
            rows.append([*shared, *cells, score] if not rows else cells)
        rows += [
            [f'<td class="note" colspan="{len(COLUMNS) + 1}">{html.escape(note)}</td>']
            for note in stats.notes
        ]
        groups.append(rows)
    header = ["case", "status", "label", "class", *COLUMNS, "uncertainty"]
    return "<h2>Cases</h2>" + _render_table(header, groups)


def _render_metric_cells(row: StructureStatistics) -> list[str]:
    mark = "*" if row.missed and row.hd95_mm is not None else ""
    return [
        _render_number_cell(_format_number(row.label_ml, ".3f")),
        _render_number_cell(_format_number(row.prediction_ml, ".3f")),
        _render_number_cell(_format_number(row.dice, ".3f")),
        _render_number_cell(_format_number(row.jaccard, ".3f")),
        _render_number_cell(_format_number(row.hd95_mm, ".2f") + mark),
        _render_number_cell(_format_number(row.asd_mm, ".2f") + mark),
    ]


def _render_interpretation(statistics: Sequence[CaseStatistics]) -> str:
    """How to read the table, as far as it applies."""
    lines = []
    if any(stats.extent == "part" for stats in statistics):
        lines.append(
            "A label <b>in part</b> counts only where somebody annotated: its volume is that of "
            "what is painted, Dice and Jaccard are over annotated voxels, there are no distances, "
            "and the case does not enter the means."
        )
    if any(row.missed for stats in statistics for row in stats.structures):
        lines.append(
            "* The structure is in only one of label and prediction: Dice is 0 and the distances "
            "are the diagonal of the scan."
        )
    if any(stats.score is not None for stats in statistics):
        lines.append(
            "<b>Uncertainty</b> is the mean in a band around what was predicted, from 0 (sure) to "
            "1; it needs no label."
        )
    if any(stats.scores is not None for stats in statistics):
        lines.append(
            "HD95 is the 95th percentile of the distances between the two surfaces, ASD their "
            "mean, in millimeters."
        )
    return "".join(f'<p class="soft">{line}</p>' for line in lines)


def _render_figures(statistics: Sequence[CaseStatistics], pictures: Mapping[str, str]) -> str:
    if not pictures:
        return ""
    stops = ", ".join(
        f"rgba({round(r * 255)}, {round(g * 255)}, {round(b * 255)}, {a * UNCERTAINTY_OPACITY:.3g})"
        for r, g, b, a in UNCERTAINTY_COLORMAP
    )
    has_predictions = any(
        row.prediction_ml is not None for stats in statistics for row in stats.structures
    )
    caption = (
        "Axial, coronal and sagittal slice through the middle of the structures, first channel, "
        "in true proportions; in the first two the patient's left is on the right. Solid lines in "
        "the color of the class: label."
    )
    if has_predictions:
        caption += " Dashed white lines around a tint of that color: prediction."
    if any(stats.score is not None for stats in statistics):
        caption += (
            ' Lower row: uncertainty over the same slices, <span class="key">0'
            f'<span class="heat" style="background: linear-gradient(90deg, {stops}), #555555">'
            "</span>1</span>."
        )
    parts = [f'<h2>Pictures</h2><p class="soft">{caption}</p>']
    for number, stats in enumerate(statistics):
        if (picture := pictures.get(stats.case.id)) is not None:
            parts.append(
                f'<section class="case" id="case-{number}"><h3>{html.escape(stats.case.id)}</h3>'
                f"<figure>{picture}<figcaption>{_render_caption(stats)}</figcaption></figure></section>"
            )
    return "\n".join(parts)


def _render_caption(stats: CaseStatistics) -> str:
    """A case's classes with their Dice, below its picture."""
    parts = []
    for row in stats.structures:
        dice = "" if row.dice is None else f" (Dice {row.dice:.3f})"
        parts.append(f"{_render_swatch(row.info.color)}{html.escape(row.info.name)}{dice}")
    if stats.score is not None:
        parts.append(f"uncertainty {stats.score:.3f}")
    return " &ensp; ".join(parts)


def _render_table(header: Sequence[str], groups: Sequence[Sequence[Sequence[str]]]) -> str:
    """Rows of cells in groups; words to the left, numbers to the right."""
    text_columns = {"status", "class", "channel", "case", "label", "label in this run"}
    head = "".join(
        f"<th>{title}</th>" if title in text_columns else f'<th class="number">{title}</th>'
        for title in header
    )
    bodies = "".join(
        "<tbody>" + "".join(f"<tr>{''.join(row)}</tr>" for row in rows) + "</tbody>"
        for rows in groups
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>{bodies}</table></div>'


def _render_swatch(color: str) -> str:
    return f'<span class="swatch" style="background: {html.escape(color)}"></span>'


def _render_text_cell(text: str) -> str:
    return f'<td class="text">{html.escape(text)}</td>'


def _render_number_cell(text: str) -> str:
    return f'<td class="number">{text}</td>'


def _format_number(value: float | None, format_spec: str) -> str:
    return MISSING if value is None else format(value, format_spec)
