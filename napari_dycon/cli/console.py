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

MAX_SCAN_DURATION_S = 12 * 3600.0  # upper limit for one scan; period of the speed estimate
STATUS_INTERVAL_S = 20.0  # between status lines outside a terminal
stderr_console = Console(stderr=True, soft_wrap=True)


def print_status(text: object) -> None:
    """Print a line of text to standard error, without interpreting rich markup."""
    stderr_console.print(plain_cell(text), highlight=False)


def is_interactive() -> bool:
    """Return whether standard error is a terminal that can show a progress bar."""
    return stderr_console.is_terminal


def plain_cell(text: object) -> Text:
    """Return text on one line, with control characters escaped and markup ignored."""
    return Text(escape_control_characters(text).replace("\n", " "))


class StatusPrinter:
    """Prints progress lines outside a terminal, at most one every ``STATUS_INTERVAL_S`` seconds."""

    def __init__(self) -> None:
        self._last_printed = time.monotonic()

    def __call__(self, text: str) -> None:
        """Print a line unless one was printed recently or a progress bar is shown."""
        if not is_interactive() and time.monotonic() - self._last_printed > STATUS_INTERVAL_S:
            self._last_printed = time.monotonic()
            print_status(text)


def print_table(table: Table) -> None:
    """Print a table to standard output."""
    _make_console(table).print(table)


def _make_console(table: Table) -> Console:
    """Make a console; outside a terminal, it is wide enough that no name is wrapped or cut."""
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
    """Write a line and flush it, so that another program can read it immediately."""
    sys.stdout.write(escape_json(line) + "\n")
    sys.stdout.flush()


class StatusColumn(ProgressColumn):
    """Description of the current task as plain text, since it may contain case names."""

    def render(self, task: Task) -> Text:
        """Return the description."""
        return plain_cell(task.description)


def make_progress_bar(as_json: bool, speed_period_s: float = 30.0) -> Progress:
    """Make a progress bar; it is disabled for JSON output and outside a terminal.

    The remaining time is estimated from the speed over the last ``speed_period_s`` seconds.
    """
    return Progress(
        StatusColumn(),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        console=stderr_console,
        transient=True,
        speed_estimate_period=speed_period_s,
        disable=as_json or not is_interactive(),
    )
