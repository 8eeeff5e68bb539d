"""What the commands show: progress bars and tables for people, JSON for programs.

Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from napari_dycon.core.text import escape_control_characters, escape_json

if TYPE_CHECKING:
    from napari_dycon.project.store import Project

Event = dict[str, Any]
LONGEST_PREDICTION = 12 * 3600.0  # seconds of a scan, by which the time left is estimated
QUIET = 20.0  # seconds between lines where no progress bar can be drawn
errors = Console(stderr=True, soft_wrap=True)


def tell(text: object) -> None:
    """Print a line of plain text on standard error; brackets and colons in it mean nothing."""
    errors.print(cell(text), highlight=False)


def cell(text: object) -> Text:
    """Plain text on one line."""
    return Text(escape_control_characters(text).replace("\n", " "))


class _OccasionalLines:
    """Says how far it is where no bar is drawn, every ``QUIET`` seconds at most."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def __call__(self, text: str) -> None:
        if not errors.is_terminal and time.monotonic() - self._said > QUIET:
            self._said = time.monotonic()
            tell(text)


def show_training(events: Iterator[Event], as_json: bool) -> None:
    """Show a run while it goes on."""
    if as_json:
        for event in events:
            print_json(event)
        return
    run, now_and_then = "", _OccasionalLines()
    with progress_bar(as_json) as progress:
        task = progress.add_task("Starting", total=1.0)
        for event in events:
            kind = event["event"]
            run = event.get("run", run)
            if kind == "started":
                tell(
                    f"Run {event['run']}: {event['labeled']} labeled and {event['unlabeled']} "
                    f"unlabeled cases, {event['device_reason']}, {event['precision']}"
                )
            elif kind == "preparing":
                text = f"Preparing {event['done']}/{event['total']}"
                progress.update(task, description=text)
                now_and_then(text)
            elif kind == "step":
                text = f"Step {event['step']}  loss {event['loss'] or float('nan'):.3f}"
                progress.update(task, completed=event["progress"], description=text)
                now_and_then(f"{text}, {event['progress']:.0%}")
            elif kind == "warps":
                text = f"Matching shapes {event['done']}/{event['total']}"
                progress.update(task, description=text)
                now_and_then(text)
            elif kind == "validation":
                tell(f"Validation at step {event['step']}: Dice {event['mean']}")
            elif kind == "warning":
                tell(event["message"])
            elif kind in ("finished", "stopped"):
                dice = f", validation Dice {event['dice']:.4f}" if event["dice"] else ""
                tell(
                    f"{kind.capitalize()} at step {event['step']} after {event['elapsed']:.0f} s"
                    f"{dice}. Run {run}{_next_step(kind, event)}"
                )


def _next_step(kind: str, event: Event) -> str:
    if not event["step"]:
        return " has learned nothing yet."
    if kind == "stopped":
        return " can go on with --resume, or predict as it is."
    return (
        " is ready to predict; to train it longer, use --resume with a larger --time-limit or "
        "--steps."
    )


@contextlib.contextmanager
def show_demo(as_json: bool) -> Iterator[Callable[[Event], None]]:
    """Show the progress of the demo; give what shows each of its events."""
    with progress_bar(as_json, speed_period=LONGEST_PREDICTION) as progress:
        task = progress.add_task("Making scans", total=1.0)
        phase, now_and_then = "", _OccasionalLines()

        def advance(name: str, done: float, total: float, text: str) -> None:
            nonlocal phase
            if phase != name:  # training and predictions differ in speed
                phase = name
                progress.reset(task)
            progress.update(task, completed=done, total=total, description=text)
            now_and_then(f"{text}, {done / max(total, 1e-9):.0%}")

        def show(event: Event) -> None:
            kind = event["event"]
            if as_json:
                print_json(event)
            elif kind == "demo":
                tell(event["message"])
            elif kind == "templates":
                tell(f"Predicted {event['case']}, to compare the others to")
            elif kind == "step":
                advance("training", event["progress"], 1.0, f"Training, step {event['step']}")
            elif kind == "predicting":
                text = f"Predicting {event['case']}"
                advance("predictions", event["done"], event["total"], text)

        yield show


@contextlib.contextmanager
def show_predictions(total: int, device: str, as_json: bool) -> Iterator[Callable[[Event], None]]:
    """Show the progress of predictions of so many scans; give what shows each of their events."""
    with progress_bar(as_json, speed_period=LONGEST_PREDICTION) as progress:
        task = progress.add_task(f"Predicting on {device}", total=total)
        if not as_json and not errors.is_terminal:  # a scan takes minutes, and no bar shows it
            tell(f"Predicting {total} scan(s) on {device}")

        def show(event: Event) -> None:
            kind = event["event"]
            if kind == "templates":  # standard output is for what was asked for
                tell(f"Predicted {event['case']}, to compare the others to")
            elif as_json:
                print_json(event)
            elif kind == "predicting":
                text = f"Predicting {event['case']}"
                done, count = event["done"], event["total"]
                progress.update(task, completed=done, total=count, description=text)
            elif kind == "predicted" and not errors.is_terminal:
                tell(f"Predicted {event['case']}")

        yield show


def show_cases(
    project: Project, as_json: bool, skipped: Sequence[dict[str, str]] | None = None
) -> None:
    """List the cases of a project, for a program also which scans were left out of it, and why."""
    rows = [
        {
            "id": case.id,
            "status": case.status,
            "split": case.split,
            "images": [str(path) for path in project.image_paths(case.id)],
        }
        for case in project.cases
    ]
    if as_json:
        print_json(
            {
                "project": project.name,
                "path": str(project.path),
                "classes": [c.model_dump() for c in project.classes],
                "channels": project.channels,
                "cases": rows,
                **({} if skipped is None else {"skipped": list(skipped)}),
            }
        )
        return
    names = ", ".join(f"{c.value} {c.name}" for c in project.classes)
    title = f"{project.name}: {len(rows)} cases; classes {names}"
    if len(project.channels) > 1:
        title += f"; channels {', '.join(project.channels)}"
    table = Table(title=cell(title))
    for column in ("case", "status", "use", "scan"):
        table.add_column(column, no_wrap=True)
    for row in rows:
        scan = str(row["images"][0])
        table.add_row(*map(cell, (row["id"], row["status"], row["split"], scan)))
    print_table(table)


def _console(table: Table) -> Console:
    """As wide as the table where a program or a file takes it; a name is never cut or broken."""
    console = Console()
    return (
        console
        if console.is_terminal
        else Console(width=Console(width=10_000).measure(table).maximum)
    )


def print_table(table: Table) -> None:
    """Print a table on standard output."""
    _console(table).print(table)


def print_json(value: Any) -> None:
    """Write one line of JSON and hand it on at once."""
    sys.stdout.write(escape_json(json.dumps(value, ensure_ascii=False)) + "\n")
    sys.stdout.flush()


class _Description(ProgressColumn):
    """What is being done, which names cases."""

    def render(self, task: Task) -> Text:
        return cell(task.description)


def progress_bar(as_json: bool, speed_period: float = 30.0) -> Progress:
    """Progress on a terminal; nothing where a program reads.

    The time that is left is estimated from what was done in the last ``speed_period`` seconds.
    """
    return Progress(
        _Description(),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
        speed_estimate_period=speed_period,
        disable=as_json or not errors.is_terminal,
    )
