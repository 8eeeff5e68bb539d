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
MAX_SCAN_DURATION_S = 12 * 3600.0  # seconds of a scan, by which the time left is estimated
STATUS_INTERVAL_S = 20.0  # seconds between lines where no progress bar can be drawn
stderr_console = Console(stderr=True, soft_wrap=True)


def print_status(text: object) -> None:
    """Print a line of plain text on standard error; brackets and colons in it mean nothing."""
    stderr_console.print(plain_cell(text), highlight=False)


def plain_cell(text: object) -> Text:
    """Plain text on one line."""
    return Text(escape_control_characters(text).replace("\n", " "))


class _StatusPrinter:
    """Says how far it is where no bar is drawn, every ``STATUS_INTERVAL_S`` seconds at most."""

    def __init__(self) -> None:
        self._last_printed = time.monotonic()

    def __call__(self, text: str) -> None:
        if (
            not stderr_console.is_terminal
            and time.monotonic() - self._last_printed > STATUS_INTERVAL_S
        ):
            self._last_printed = time.monotonic()
            print_status(text)


def show_training(events: Iterator[Event], as_json: bool) -> None:
    """Show a run while it goes on."""
    if as_json:
        for event in events:
            print_json(event)
        return
    run, print_occasionally = "", _StatusPrinter()
    with make_progress_bar(as_json) as progress:
        task = progress.add_task("Starting", total=1.0)
        for event in events:
            kind = event["event"]
            run = event.get("run", run)
            if kind == "started":
                print_status(
                    f"Run {event['run']}: {event['labeled']} labeled and {event['unlabeled']} "
                    f"unlabeled cases, {event['device_reason']}, {event['precision']}"
                )
            elif kind == "preparing":
                text = f"Preparing {event['done']}/{event['total']}"
                progress.update(task, description=text)
                print_occasionally(text)
            elif kind == "step":
                text = f"Step {event['step']}  loss {event['loss'] or float('nan'):.3f}"
                progress.update(task, completed=event["progress"], description=text)
                print_occasionally(f"{text}, {event['progress']:.0%}")
            elif kind == "warps":
                text = f"Matching shapes {event['done']}/{event['total']}"
                progress.update(task, description=text)
                print_occasionally(text)
            elif kind == "validation":
                print_status(f"Validation at step {event['step']}: Dice {event['mean']}")
            elif kind == "warning":
                print_status(event["message"])
            elif kind in ("finished", "stopped"):
                dice = f", validation Dice {event['dice']:.4f}" if event["dice"] else ""
                print_status(
                    f"{kind.capitalize()} at step {event['step']} after {event['elapsed']:.0f} s"
                    f"{dice}. Run {run}{_next_step_hint(kind, event)}"
                )


def _next_step_hint(kind: str, event: Event) -> str:
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
    with make_progress_bar(as_json, speed_period_s=MAX_SCAN_DURATION_S) as progress:
        task = progress.add_task("Making scans", total=1.0)
        phase, print_occasionally = "", _StatusPrinter()

        def update_progress(name: str, done: float, total: float, text: str) -> None:
            nonlocal phase
            if phase != name:  # training and predictions differ in speed
                phase = name
                progress.reset(task)
            progress.update(task, completed=done, total=total, description=text)
            print_occasionally(f"{text}, {done / max(total, 1e-9):.0%}")

        def show_event(event: Event) -> None:
            kind = event["event"]
            if as_json:
                print_json(event)
            elif kind == "demo":
                print_status(event["message"])
            elif kind == "templates":
                print_status(f"Predicted {event['case']}, to compare the others to")
            elif kind == "step":
                update_progress(
                    "training", event["progress"], 1.0, f"Training, step {event['step']}"
                )
            elif kind == "predicting":
                text = f"Predicting {event['case']}"
                update_progress("predictions", event["done"], event["total"], text)

        yield show_event


@contextlib.contextmanager
def show_predictions(total: int, device: str, as_json: bool) -> Iterator[Callable[[Event], None]]:
    """Show the progress of predictions of so many scans; give what shows each of their events."""
    with make_progress_bar(as_json, speed_period_s=MAX_SCAN_DURATION_S) as progress:
        task = progress.add_task(f"Predicting on {device}", total=total)
        if (
            not as_json and not stderr_console.is_terminal
        ):  # a scan takes minutes, and no bar shows it
            print_status(f"Predicting {total} scan(s) on {device}")

        def show_event(event: Event) -> None:
            kind = event["event"]
            if kind == "templates":  # standard output is for what was asked for
                print_status(f"Predicted {event['case']}, to compare the others to")
            elif as_json:
                print_json(event)
            elif kind == "predicting":
                text = f"Predicting {event['case']}"
                done, count = event["done"], event["total"]
                progress.update(task, completed=done, total=count, description=text)
            elif kind == "predicted" and not stderr_console.is_terminal:
                print_status(f"Predicted {event['case']}")

        yield show_event


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
    table = Table(title=plain_cell(title))
    for column in ("case", "status", "use", "scan"):
        table.add_column(column, no_wrap=True)
    for case, row in zip(project.cases, rows, strict=True):
        scan = str(row["images"][0])
        table.add_row(*map(plain_cell, (case.id, case.status.display_name, case.split, scan)))
    print_table(table)


def _make_console(table: Table) -> Console:
    """As wide as the table where a program or a file takes it; a name is never cut or broken."""
    console = Console()
    return (
        console
        if console.is_terminal
        else Console(width=Console(width=10_000).measure(table).maximum)
    )


def print_table(table: Table) -> None:
    """Print a table on standard output."""
    _make_console(table).print(table)


def print_json(value: Any) -> None:
    """Write one line of JSON and hand it on at once."""
    sys.stdout.write(escape_json(json.dumps(value, ensure_ascii=False)) + "\n")
    sys.stdout.flush()


class _StatusColumn(ProgressColumn):
    """What is being done, which names cases."""

    def render(self, task: Task) -> Text:
        return plain_cell(task.description)


def make_progress_bar(as_json: bool, speed_period_s: float = 30.0) -> Progress:
    """Progress on a terminal; nothing where a program reads.

    The time that is left is estimated from what was done in the last ``speed_period`` seconds.
    """
    return Progress(
        _StatusColumn(),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        console=stderr_console,
        transient=True,
        speed_estimate_period=speed_period_s,
        disable=as_json or not stderr_console.is_terminal,
    )
