"""Progress of the command ``predict``: phases, a bar and the remaining time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, ProgressColumn, Task
from rich.text import Text

from napari_dycon.application.predictions.status import describe_progress
from napari_dycon.cli.console import (
    StatusPrinter,
    is_interactive,
    plain_cell,
    print_event,
    print_status,
    stderr_console,
)
from napari_dycon.project.runs.events import (
    Event,
    PredictedEvent,
    PredictionProgressEvent,
    TemplatesEvent,
)

if TYPE_CHECKING:
    from napari_dycon.engine.inference.progress import PredictionProgress

BAR_WIDTH = 24  # in characters; the rest of a line is text
INTERVAL_S = 1.0  # between two reports of the progress


class _TextColumn(ProgressColumn):
    """Text of the current task, since it may contain case names."""

    def render(self, task: Task) -> Text:
        return plain_cell(task.description)


@contextlib.contextmanager
def show_predictions(
    progress: PredictionProgress, as_json: bool
) -> Iterator[Callable[[Event], None]]:
    """Show the progress until the end of the block; yield the function that shows an event."""
    bar = Progress(
        BarColumn(BAR_WIDTH),
        _TextColumn(),
        console=stderr_console,
        transient=True,
        disable=as_json or not is_interactive(),
    )
    task = bar.add_task("", total=None)
    print_occasionally = StatusPrinter()
    lock = threading.Lock()  # events come from two threads

    def show_event(event: Event) -> None:
        with lock:
            if as_json:
                print_event(event)
            elif isinstance(event, PredictionProgressEvent):
                text = describe_progress(event)
                is_known = event.remaining_s is not None
                bar.update(
                    task,
                    description=text,
                    total=1.0 if is_known else None,
                    completed=event.progress if is_known else 0.0,
                )
                print_occasionally(text)
            elif isinstance(event, TemplatesEvent):
                print_status(f"Reference scan {event.done} of {event.total} ready")
            elif isinstance(event, PredictedEvent) and event.total > 1:
                print_status(f"Predicted {event.case} ({event.done} of {event.total})")

    with bar, _report_periodically(progress, show_event):
        yield show_event


@contextlib.contextmanager
def _report_periodically(
    progress: PredictionProgress, show: Callable[[Event], None]
) -> Iterator[None]:
    """Report the progress now and every second from a thread, also within a long computation."""
    has_ended = threading.Event()

    def report() -> None:
        show(progress.make_event())
        while not has_ended.wait(INTERVAL_S):
            show(progress.make_event())

    thread = threading.Thread(target=report, name="prediction progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        has_ended.set()
        thread.join()
