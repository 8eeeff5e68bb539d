"""Terminal output of the commands: status lines, tables, JSON and progress bars.

Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

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
from napari_dycon.project.runs.events import Event, format_event

MAX_SCAN_DURATION_S = 12 * 3600.0  # of one scan, by which the remaining time is estimated
STATUS_INTERVAL_S = 20.0  # between lines where no progress bar can be drawn
stderr_console = Console(stderr=True, soft_wrap=True)


def print_status(text: object) -> None:
    """Print a line of plain text on standard error; brackets and colons in it mean nothing."""
    stderr_console.print(plain_cell(text), highlight=False)


def is_interactive() -> bool:
    """Whether standard error is a terminal, on which a progress bar can be drawn."""
    return stderr_console.is_terminal


def plain_cell(text: object) -> Text:
    """Plain text on one line."""
    return Text(escape_control_characters(text).replace("\n", " "))


class StatusPrinter:
    """Prints the progress where no bar is drawn, every ``STATUS_INTERVAL_S`` seconds at most."""

    def __init__(self) -> None:
        self._last_printed = time.monotonic()

    def __call__(self, text: str) -> None:
        """Print a line unless one was printed recently or a bar is drawn."""
        if not is_interactive() and time.monotonic() - self._last_printed > STATUS_INTERVAL_S:
            self._last_printed = time.monotonic()
            print_status(text)


def print_table(table: Table) -> None:
    """Print a table on standard output."""
    _make_console(table).print(table)


def _make_console(table: Table) -> Console:
    """As wide as the table where a program or a file takes it; a name is never cut or broken."""
    console = Console()
    return (
        console
        if console.is_terminal
        else Console(width=Console(width=10_000).measure(table).maximum)
    )


def print_json(value: Any) -> None:
    """Write one line of JSON to standard output."""
    _print_json_line(json.dumps(value, ensure_ascii=False))


def print_event(event: Event) -> None:
    """Write the line of an event to standard output."""
    _print_json_line(format_event(event))


def _print_json_line(line: str) -> None:
    """Write a line and flush it, so that a program can follow."""
    sys.stdout.write(escape_json(line) + "\n")
    sys.stdout.flush()


class _StatusColumn(ProgressColumn):
    """The current task, whose text may hold names of cases."""

    def render(self, task: Task) -> Text:
        return plain_cell(task.description)


def make_progress_bar(as_json: bool, speed_period_s: float = 30.0) -> Progress:
    """Make a progress bar for a terminal; it shows nothing where a program reads.

    The remaining time is estimated from the progress of the last ``speed_period_s`` seconds.
    """
    return Progress(
        _StatusColumn(),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        console=stderr_console,
        transient=True,
        speed_estimate_period=speed_period_s,
        disable=as_json or not is_interactive(),
    )
