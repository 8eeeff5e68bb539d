"""The command ``demo``: run the complete workflow on synthetic scans, with or without napari."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from napari_dycon.cli.console import (
    MAX_SCAN_DURATION_S,
    StatusPrinter,
    make_progress_bar,
    print_event,
    print_status,
)
from napari_dycon.cli.options import JsonOption
from napari_dycon.project.runs.events import (
    DemoEvent,
    Event,
    PredictingEvent,
    StepEvent,
    TemplatesEvent,
)


def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Output folder.")] = Path(
        "dycon-demo"
    ),
    headless: Annotated[bool, typer.Option("--headless", help="Run without a window.")] = False,
    screenshot: Annotated[
        bool,
        typer.Option("--screenshot", help="Run in the window, save screenshots, and exit."),
    ] = False,
    steps: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Number of training steps.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the complete workflow on synthetic scans: train, predict and evaluate."""
    with show_demo(as_json) as show:
        if headless:
            from napari_dycon.demo.run import run_headless

            run_headless(out, steps=steps, on_event=show)
        else:
            from napari_dycon.demo.window import run_in_window

            run_in_window(out, steps=steps, close=screenshot, on_event=show)


@contextlib.contextmanager
def show_demo(as_json: bool) -> Iterator[Callable[[Event], None]]:
    """Show the progress of the demo; yield the function that shows an event."""
    with make_progress_bar(as_json, speed_period_s=MAX_SCAN_DURATION_S) as progress:
        task = progress.add_task("Generating scans", total=1.0)
        phase, print_occasionally = "", StatusPrinter()

        def update_progress(name: str, done: float, total: float, text: str) -> None:
            nonlocal phase
            if phase != name:  # restart the estimate of the remaining time
                phase = name
                progress.reset(task)
            progress.update(task, completed=done, total=total, description=text)
            print_occasionally(f"{text}, {done / max(total, 1e-9):.0%}")

        def show_event(event: Event) -> None:
            if as_json:
                print_event(event)
                return
            match event:
                case DemoEvent():
                    print_status(event.message)
                case TemplatesEvent():
                    print_status(f"Reference scan {event.done} of {event.total} ready")
                case StepEvent():
                    text = f"Training, step {event.step}"
                    update_progress("training", event.progress, 1.0, text)
                case PredictingEvent():
                    text = f"Predicting {event.case}"
                    update_progress("predictions", event.done, event.total, text)

        yield show_event
