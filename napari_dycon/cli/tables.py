"""Tables of the commands: the cases of a project, and the metrics of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from napari_dycon.cli.console import plain_cell, print_json, print_table
from napari_dycon.core.wording import format_count
from napari_dycon.engine.evaluation.formatting import (
    CASE_COLUMNS,
    METRIC_COLUMNS,
    describe_uncertainty,
    format_evaluation_rows,
)
from napari_dycon.project.case_counts import count_cases

if TYPE_CHECKING:
    from napari_dycon.project.store import Project


def show_cases(
    project: Project, as_json: bool, skipped: Sequence[dict[str, str]] | None = None
) -> None:
    """Print the cases of a project; JSON output also lists the skipped scans with the reasons."""
    rows = [
        {
            "id": case.id,
            "name": case.display_name,
            "status": case.status,
            "split": case.split,
            "images": [str(path) for path in project.image_paths(case.id)],
        }
        for case in project.cases
    ]
    counts = count_cases(project.cases)
    if as_json:
        print_json(
            {
                "project": project.name,
                "path": str(project.path),
                "classes": [c.model_dump() for c in project.classes],
                "channels": project.channels,
                "counts": asdict(counts),
                "cases": rows,
                **({} if skipped is None else {"skipped": list(skipped)}),
            }
        )
        return
    names = ", ".join(f"{c.value} {c.name}" for c in project.classes)
    title = f"{project.name}: {counts.describe()}; classes {names}"
    if len(project.channels) > 1:
        title += f"; channels {', '.join(project.channels)}"
    table = Table(title=plain_cell(title))
    is_renamed = any(row["name"] != row["id"] for row in rows)
    columns = ("case", *(("name",) if is_renamed else ()), "status", "split", "scan")
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        cells = {**row, "case": row["id"], "scan": row["images"][0]}
        table.add_row(*(plain_cell(str(cells[column])) for column in columns))
    print_table(table)


def build_evaluation_table(
    result: Mapping[str, Any], names: Mapping[int, str] | None = None
) -> Table:
    """Build the table of a result of ``evaluate_folders``; ``names`` of classes by value."""
    summary = result["summary"]
    table = Table(
        title=f"{format_count(summary['cases'], 'case')}, mean foreground Dice "
        f"{summary['mean_dice']:.3f} ± {summary['sd_dice']:.3f}"
    )
    for column in CASE_COLUMNS:
        table.add_column(column, justify="left", no_wrap=True)
    for metric in METRIC_COLUMNS:
        table.add_column(metric.title, justify="right", no_wrap=True)
    for row in format_evaluation_rows(result, names):
        table.add_row(*map(plain_cell, row), style="bold" if row[0] == "mean" else None)
    if lines := describe_uncertainty(summary):
        table.caption = "\n".join(lines)
    return table
