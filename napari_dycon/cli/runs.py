"""The command ``runs``, and what ``predict`` says about the run that it uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from napari_dycon.cli.console import plain_cell, print_json, print_status, print_table
from napari_dycon.cli.options import JsonOption, ProjectPath, open_project
from napari_dycon.core.durations import format_elapsed
from napari_dycon.project.runs.run_facts import RunFacts, format_time, read_run_facts

if TYPE_CHECKING:
    from napari_dycon.project.runs.run import Run
    from napari_dycon.project.store import Project

COLUMNS = (
    "run", "state", "started", "steps", "time", "labeled", "unlabeled", "validation", "Dice",
    "predictions",
)  # fmt: skip
N_TEXT_COLUMNS = 3
MIN_USEFUL_STEPS = 100  # fewer steps hardly train a network
MUCH_LONGER = 2  # times the steps of the run that is used


def runs(project: ProjectPath, as_json: JsonOption = False) -> None:
    """List the training runs of a project.

    Shows steps, training time, cases, and the newest validation Dice. That Dice is of the networks
    only: predictions may also use labeled scans as atlases, and then differ.
    """
    opened = open_project(project)
    rows = [_describe_run(opened, run) for run in opened.runs.list()]
    usable = [row["run"] for row in rows if row["has_weights"]]
    if as_json:
        default = usable[-1] if usable else None
        print_json({"project": opened.name, "default_run": default, "runs": rows})
        return
    if not rows:
        print_status(f"{opened.name} has no runs yet. Train with: napari-dycon train {project}")
        return
    table = Table(
        title=plain_cell(f"{opened.name}: runs, the oldest first"),
        caption="Dice: mean over the validation cases, of the networks only",
    )
    for number, column in enumerate(COLUMNS):
        justify = "left" if number < N_TEXT_COLUMNS else "right"
        table.add_column(column, no_wrap=True, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*(plain_cell(cell) for cell in _format_row(row)))
    print_table(table)
    if usable:
        print_status(f"Predictions use {usable[-1]} unless --run is given.")


def _describe_run(project: Project, run: Run) -> dict[str, Any]:
    from napari_dycon.application.engine_process import is_running

    facts = read_run_facts(run)
    is_active = not facts.outcome and is_running(run, read_only=True)
    state = facts.outcome or ("running" if is_active else "interrupted")
    values = asdict(facts)
    del values["outcome"]
    return {**values, "state": state, "predictions": project.predictions.count(run.id)}


def _format_row(row: dict[str, Any]) -> list[str]:
    return [
        row["run"],
        row["state"],
        "–" if row["started"] is None else format_time(row["started"]),
        str(row["steps_taken"] if row["state"] == "running" else row["steps"]),
        "–" if row["elapsed_s"] is None else format_elapsed(row["elapsed_s"]),
        *("–" if row[key] is None else str(row[key]) for key in COLUMNS[5:8]),
        "–" if row["dice"] is None else f"{row['dice']:.3f}",
        str(row["predictions"]),
    ]


def describe_choice(project: Project, run: Run, *, is_default: bool) -> list[str]:
    """Describe the run that predicts, and how to choose another.

    Parameters
    ----------
    is_default : whether the run was chosen because it is the newest one
    """
    facts = read_run_facts(run)
    lines = [f"Run {run.id}{', the newest' if is_default else ''}: {facts.describe()}."]
    if facts.steps < MIN_USEFUL_STEPS:
        lines.append(
            f"With fewer than {MIN_USEFUL_STEPS} steps, a network has hardly learned: expect poor "
            "predictions."
        )
    others = [one for one in project.runs.list() if one.has_weights and one.id != run.id]
    if is_default and others:
        lines.append(_describe_others(facts, [read_run_facts(one) for one in others]))
    return lines


def _describe_others(facts: RunFacts, others: Sequence[RunFacts]) -> str:
    """Say how to choose another run, and which was trained much longer."""
    longest = max(others, key=lambda one: one.steps)
    if longest.steps >= MUCH_LONGER * max(facts.steps, 1):
        return (
            f"Run {longest.run} was trained much longer ({longest.describe()}): to use it, give "
            f"--run {longest.run}."
        )
    return "Choose another with --run; the command runs lists them."
