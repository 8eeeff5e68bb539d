"""Figures of an evaluation as a table for the terminal and as a short text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from napari_dycon.cli.console import plain_cell
from napari_dycon.core.atomic import write_text

COLUMNS = (
    ("dice", "Dice", ".3f"),
    ("jaccard", "Jaccard", ".3f"),
    ("hd95_mm", "HD95 mm", ".2f"),
    ("asd_mm", "ASD mm", ".2f"),
    ("volume_ml", "volume ml", ".2f"),
    ("reference_volume_ml", "true ml", ".2f"),
)
MISSING_NOTE = (
    "A structure marked (missed) was not found at all, or found where there is none: its Dice is 0 "
    "and its distances are the diagonal of the scan."
)


def has_missing_structures(result: Mapping[str, Any]) -> bool:
    """Whether a structure is marked as missed in any case."""
    return any(m["missed"] for c in result["cases"].values() for m in c["classes"].values())


def format_evaluation_rows(
    result: Mapping[str, Any], names: Mapping[int, str] | None = None
) -> list[list[str]]:
    """One row a case and class, then the mean of each class, as formatted text."""
    names = names or {}
    rows = []
    for case, scores in result["cases"].items():
        for value, measures in scores["classes"].items():
            missed = " (missed)" if measures["missed"] else ""
            rows.append([case, _get_class_name(value, names) + missed, *_format_cells(measures)])
    for value, measures in result["summary"]["classes"].items():
        means = {key: measures[key]["mean"] for key, _, _ in COLUMNS}
        rows.append(["mean", _get_class_name(value, names), *_format_cells(means)])
    return rows


def build_evaluation_table(result: Mapping[str, Any]) -> Table:
    """Table for the terminal."""
    summary = result["summary"]
    table = Table(
        title=f"{summary['cases']} cases, mean foreground Dice {summary['mean_dice']:.4f} "
        f"± {summary['sd_dice']:.4f}"
    )
    for column in ("case", "class", *(title for _, title, _ in COLUMNS)):
        table.add_column(
            column, justify="left" if column in ("case", "class") else "right", no_wrap=True
        )
    for row in format_evaluation_rows(result):
        table.add_row(*map(plain_cell, row), style="bold" if row[0] == "mean" else None)
    if quality := describe_uncertainty(summary):
        table.caption = "\n".join(quality)
    return table


def write_markdown_report(
    path: Path,
    title: str,
    introduction: list[str],
    result: Mapping[str, Any],
    names: Mapping[int, str],
) -> None:
    """Write a short report as Markdown: what was done, then the figures."""
    summary = result["summary"]
    lines = [f"# {title}", "", *introduction, ""]
    lines += [
        f"Mean foreground Dice over {summary['cases']} cases: **{summary['mean_dice']:.3f}** "
        f"± {summary['sd_dice']:.3f}",
        "",
    ]
    if quality := describe_uncertainty(summary):
        lines += [*(f"- {line}" for line in quality), ""]
    if has_missing_structures(result):
        lines += [MISSING_NOTE, ""]
    header = ["case", "class", *(title for _, title, _ in COLUMNS)]
    lines += ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in format_evaluation_rows(result, names)]
    write_text(path, "\n".join(lines) + "\n")


def describe_uncertainty(summary: Mapping[str, Any]) -> list[str]:
    """What the uncertainty maps were worth, one line a measure."""
    quality = summary.get("uncertainty") or {}
    descriptions = {
        "auroc": "Errors found by uncertainty, AUROC over the scan (0.5 = chance, 1 = all)",
        "auroc_foreground": "The same around the structures only",
        "ece": "Calibration error, ECE (0 is best)",
        "rank_correlation": "Rank correlation of the case score with 1 - Dice (1 is best)",
    }
    return [
        f"{text}: {quality[key]:.3f}"
        for key, text in descriptions.items()
        if quality.get(key) is not None
    ]


def _get_class_name(value: object, names: Mapping[int, str]) -> str:
    return names.get(int(str(value)), str(value))


def _format_cells(measures: Mapping[str, Any]) -> list[str]:
    return [
        "–" if measures[key] is None else format(measures[key], format_spec)
        for key, _, format_spec in COLUMNS
    ]
