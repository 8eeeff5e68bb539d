"""The report of the demo as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_dycon.core.atomic import write_text
from napari_dycon.engine.evaluation.formatting import (
    CASE_COLUMNS,
    METRIC_COLUMNS,
    MISSED_NOTE,
    describe_uncertainty,
    format_evaluation_rows,
    has_missed_structures,
)


def write_markdown_report(
    path: Path,
    title: str,
    introduction: list[str],
    result: Mapping[str, Any],
    names: Mapping[int, str],
) -> None:
    """Write a short report: the introduction, then the result of ``evaluate_folders``."""
    summary = result["summary"]
    lines = [f"# {title}", "", *introduction, ""]
    lines += [
        f"Mean foreground Dice over {summary['cases']} cases: **{summary['mean_dice']:.3f}** "
        f"± {summary['sd_dice']:.3f}",
        "",
    ]
    if quality := describe_uncertainty(summary):
        lines += [*(f"- {line}" for line in quality), ""]
    if has_missed_structures(result):
        lines += [MISSED_NOTE, ""]
    header = [*CASE_COLUMNS, *(column.title for column in METRIC_COLUMNS)]
    lines += ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in format_evaluation_rows(result, names)]
    write_text(path, "\n".join(lines) + "\n")
