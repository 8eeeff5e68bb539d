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
from napari_dycon.exports.report.figures import HEAT_OPACITY
from napari_dycon.exports.report.statistics import EXTENTS, CaseFigures, StructureFigures
from napari_dycon.project.models import STATUSES, ClassInfo
from napari_dycon.project.runs.run import Run
from napari_dycon.project.store import Project

NOTHING = "–"
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
COLUMNS = ("label ml", "prediction ml", "Dice", "Jaccard", "HD95 mm", "ASD mm")
MEANS = (
    ("reference_volume_ml", ".3f"),
    ("volume_ml", ".3f"),
    ("dice", ".3f"),
    ("jaccard", ".3f"),
    ("hd95_mm", ".2f"),
    ("asd_mm", ".2f"),
)
GROUPS = {
    "validation": "Kept for validation",
    "labeled since": "Labeled since",
    "learned from": "Learned from",
}


def page(
    project: Project,
    run: Run | None,
    figures: Sequence[CaseFigures],
    summaries: Mapping[str, Mapping[str, Any]],
    pictures: Mapping[str, str],
) -> str:
    """Put the page together.

    Parameters
    ----------
    figures : of all cases of the report
    summaries : for each use of a label (see ``GROUPS``) what ``metrics.summarize`` returned
    pictures : for the ids of cases with a scan, an ``svg`` element
    """
    style = (files("napari_dycon") / "resources" / "report.css").read_text(encoding="utf-8")
    name = html.escape(project.name)
    body = [
        f"<h1>{name}</h1>",
        f'<p class="soft">{_about(figures)}. {_run(run)}</p>',
        _facts(project, figures),
        _agreement(summaries, project.classes),
        _cases(figures, pictures),
        _reading(figures),
        _views(figures, pictures),
        f'<p class="soft">Made with napari-dycon {__version__}. Not for diagnosis.</p>',
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def _about(figures: Sequence[CaseFigures]) -> str:
    count = len(figures)
    return f"{count} case{'' if count == 1 else 's'}"


def _run(run: Run | None) -> str:
    if run is None:
        return "No predictions: this report is of the labels alone."
    config, metrics = run.read_config(), run.read_metrics()
    text = f"Predictions of run {html.escape(run.id)}, method {html.escape(run.method)}"
    if (steps := metrics.get("step")) is not None:
        text += f", {int(steps)} steps"
    if start := config.get("init_from"):
        text += f", continued from {html.escape(str(start))}"
    return text + "."


def _facts(project: Project, figures: Sequence[CaseFigures]) -> str:
    counts = Counter(one.case.status for one in figures)
    by_status = [[_text(status), _cell(str(counts[status]))] for status in STATUSES]
    classes = [
        [f"<td>{_swatch(info.color)}{html.escape(info.name)}</td>", _cell(str(info.value))]
        for info in project.classes
    ]
    channels = [[_text(channel)] for channel in project.channels]
    return (
        '<div class="facts">'
        + _table(["status", "cases"], [by_status])
        + _table(["class", "value"], [classes])
        + (_table(["channel"], [channels]) if len(channels) > 1 else "")
        + "</div>"
    )


def _agreement(summaries: Mapping[str, Mapping[str, Any]], classes: Sequence[ClassInfo]) -> str:
    if not summaries:
        return ""
    groups = []
    for use, title in GROUPS.items():
        if (summary := summaries.get(use)) is None:
            continue
        rows: list[list[str]] = []
        for info in classes:
            found = summary["classes"][str(info.value)]
            first = [f'<td rowspan="{len(classes)}">{title}</td>'] if not rows else []
            count = [f'<td class="number" rowspan="{len(classes)}">{summary["cases"]}</td>']
            rows.append(
                [
                    *first,
                    *(count if first else []),
                    _text(info.name),
                    *(_cell(format(found[key]["mean"], form)) for key, form in MEANS),
                    _cell(str(found["missed"])),
                ]
            )
        groups.append(rows)
    header = ["label in this run", "cases", "class", *COLUMNS, "missed"]
    return (
        "<h2>Means over completely labeled cases</h2>"
        + _table(header, groups)
        + '<p class="soft">Only cases kept for validation tell how well new scans are segmented. '
        "A label that the run learned from, or that was made by correcting its prediction, agrees "
        "better than a new one would.</p>"
    )


def _cases(figures: Sequence[CaseFigures], pictures: Mapping[str, str]) -> str:
    groups = []
    for number, one in enumerate(figures):
        lines = len(one.structures) + len(one.notes)
        name = html.escape(one.case.id)
        if one.case.id in pictures:
            name = f'<a href="#case-{number}">{name}</a>'
        label = EXTENTS[one.extent] + (f", {one.use}" if one.use else "")
        shared = [
            f'<td class="text" rowspan="{lines}">{name}</td>',
            f'<td rowspan="{lines}">{html.escape(one.case.status)}</td>',
            f'<td rowspan="{lines}">{html.escape(label)}</td>',
        ]
        score = f'<td class="number" rowspan="{lines}">{_number(one.score, ".3f")}</td>'
        rows: list[list[str]] = []
        for row in one.structures:
            cells = [_text(row.info.name), *_measures(row)]
            rows.append([*shared, *cells, score] if not rows else cells)
        rows += [
            [f'<td class="note" colspan="{len(COLUMNS) + 1}">{html.escape(note)}</td>']
            for note in one.notes
        ]
        groups.append(rows)
    header = ["case", "status", "label", "class", *COLUMNS, "uncertainty"]
    return "<h2>Cases</h2>" + _table(header, groups)


def _measures(row: StructureFigures) -> list[str]:
    mark = "*" if row.missed and row.hd95_mm is not None else ""
    return [
        _cell(_number(row.label_ml, ".3f")),
        _cell(_number(row.prediction_ml, ".3f")),
        _cell(_number(row.dice, ".3f")),
        _cell(_number(row.jaccard, ".3f")),
        _cell(_number(row.hd95_mm, ".2f") + mark),
        _cell(_number(row.asd_mm, ".2f") + mark),
    ]


def _reading(figures: Sequence[CaseFigures]) -> str:
    """How to read the table, as far as it applies."""
    told = []
    if any(one.extent == "part" for one in figures):
        told.append(
            "A label <b>in part</b> counts only where somebody annotated: its volume is that of "
            "what is painted, Dice and Jaccard are over annotated voxels, there are no distances, "
            "and the case does not enter the means."
        )
    if any(row.missed for one in figures for row in one.structures):
        told.append(
            "* The structure is in only one of label and prediction: Dice is 0 and the distances "
            "are the diagonal of the scan."
        )
    if any(one.score is not None for one in figures):
        told.append(
            "<b>Uncertainty</b> is the mean in a band around what was predicted, from 0 (sure) to "
            "1; it needs no label."
        )
    if any(one.scores is not None for one in figures):
        told.append(
            "HD95 is the 95th percentile of the distances between the two surfaces, ASD their "
            "mean, in millimeters."
        )
    return "".join(f'<p class="soft">{line}</p>' for line in told)


def _views(figures: Sequence[CaseFigures], pictures: Mapping[str, str]) -> str:
    if not pictures:
        return ""
    stops = ", ".join(
        f"rgba({round(r * 255)}, {round(g * 255)}, {round(b * 255)}, {a * HEAT_OPACITY:.3g})"
        for r, g, b, a in UNCERTAINTY_COLORMAP
    )
    predicted = any(row.prediction_ml is not None for one in figures for row in one.structures)
    caption = (
        "Axial, coronal and sagittal slice through the middle of the structures, first channel, "
        "in true proportions; in the first two the patient's left is on the right. Solid lines in "
        "the color of the class: label."
    )
    if predicted:
        caption += " Dashed white lines around a tint of that color: prediction."
    if any(one.score is not None for one in figures):
        caption += (
            ' Lower row: uncertainty over the same slices, <span class="key">0'
            f'<span class="heat" style="background: linear-gradient(90deg, {stops}), #555555">'
            "</span>1</span>."
        )
    parts = [f'<h2>Pictures</h2><p class="soft">{caption}</p>']
    for number, one in enumerate(figures):
        if (picture := pictures.get(one.case.id)) is not None:
            parts.append(
                f'<section class="case" id="case-{number}"><h3>{html.escape(one.case.id)}</h3>'
                f"<figure>{picture}<figcaption>{_line(one)}</figcaption></figure></section>"
            )
    return "\n".join(parts)


def _line(one: CaseFigures) -> str:
    """A case's classes with their Dice, below its picture."""
    parts = []
    for row in one.structures:
        dice = "" if row.dice is None else f" (Dice {row.dice:.3f})"
        parts.append(f"{_swatch(row.info.color)}{html.escape(row.info.name)}{dice}")
    if one.score is not None:
        parts.append(f"uncertainty {one.score:.3f}")
    return " &ensp; ".join(parts)


def _table(header: Sequence[str], groups: Sequence[Sequence[Sequence[str]]]) -> str:
    """Rows of cells in groups; words to the left, numbers to the right."""
    words = {"status", "class", "channel", "case", "label", "label in this run"}
    head = "".join(
        f"<th>{title}</th>" if title in words else f'<th class="number">{title}</th>'
        for title in header
    )
    bodies = "".join(
        "<tbody>" + "".join(f"<tr>{''.join(row)}</tr>" for row in rows) + "</tbody>"
        for rows in groups
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>{bodies}</table></div>'


def _swatch(color: str) -> str:
    return f'<span class="swatch" style="background: {html.escape(color)}"></span>'


def _text(text: str) -> str:
    return f'<td class="text">{html.escape(text)}</td>'


def _cell(text: str) -> str:
    return f'<td class="number">{text}</td>'


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)
