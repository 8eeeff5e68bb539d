"""Progress of a training run in the terminal: a bar, or lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.progress import BarColumn, Progress, ProgressColumn, Task
from rich.text import Text

from napari_dycon.cli.console import (
    StatusColumn,
    is_interactive,
    print_event,
    print_status,
    stderr_console,
)
from napari_dycon.project.case_counts import CaseCounts
from napari_dycon.project.runs.events import (
    Event,
    FinishedEvent,
    PausedEvent,
    Phase,
    PhaseEvent,
    ResumedEvent,
    SemiSupervisedEvent,
    StartedEvent,
    StepEvent,
    StoppedEvent,
    ValidationEvent,
    WarningEvent,
)
from napari_dycon.project.runs.phase_text import (
    DICE,
    VALIDATION_DICE,
    describe_phase,
    describe_semi_supervised,
)

MIN_LINE_INTERVAL_S, MAX_LINE_INTERVAL_S = 5.0, 60.0  # between lines outside a terminal
LINE_INTERVAL_FRACTION = 1 / 60  # of the time so far, so that long runs do not fill a log file


def show_training(events: Iterator[Event], as_json: bool, counts: str = "") -> None:
    """Show the progress of a run.

    Parameters
    ----------
    counts : describes the cases of the project; by default, those of the run are
    """
    if as_json:
        for event in events:
            print_event(event)
        return
    display = TrainingDisplay(counts)
    with display.progress:
        for event in events:
            display.show(event)


class TrainingDisplay:
    """What the run is doing, how far it is and how long it will take."""

    def __init__(self, counts: str = "") -> None:
        self._counts = counts
        self._begin = self._printed_at = time.monotonic()
        self._run, self._text = "", "Starting training"
        self._remaining_s: float | None = None
        self._phase: Phase = "starting"
        self.progress = Progress(
            StatusColumn(),
            BarColumn(),
            _TimeColumn(),
            console=stderr_console,
            transient=True,
            disable=not is_interactive(),
        )
        self._task = self.progress.add_task(self._text, total=None, end_time=None)
        self._print_line()

    def show(self, event: Event) -> None:
        """Show an event."""
        match event:
            case StartedEvent():
                self._run = event.run
            case PhaseEvent():
                is_new = event.phase != self._phase
                self._phase = event.phase
                self._update(describe_phase(event), event.remaining_s, is_urgent=is_new)
            case StepEvent():
                loss = f"loss {event.loss:.3f}" if event.loss is not None else "loss not finite"
                self._update(f"Training, step {event.step}, {loss}", event.remaining_s)
            case PausedEvent():
                self._update("Paused", None, is_urgent=True)
            case ResumedEvent():
                self._update("Training", None, is_urgent=True)
        if message := _describe_event(event, self._run, self._counts):
            print_status(message)
            self._printed_at = time.monotonic()

    def _update(self, text: str, remaining_s: float | None, *, is_urgent: bool = False) -> None:
        now = time.monotonic()
        elapsed_s = now - self._begin
        if remaining_s is None:
            self.progress.update(self._task, description=text, total=None, end_time=None)
        else:
            self.progress.update(
                self._task,
                description=text,
                completed=elapsed_s,
                total=max(elapsed_s + remaining_s, 1e-6),
                end_time=now + remaining_s,
            )
        self._text, self._remaining_s = text, remaining_s
        interval_s = min(
            max(LINE_INTERVAL_FRACTION * elapsed_s, MIN_LINE_INTERVAL_S), MAX_LINE_INTERVAL_S
        )
        # Previews of small scans come and go in a moment.
        if now - self._printed_at > (1.0 if is_urgent else interval_s):
            self._print_line()

    def _print_line(self) -> None:
        if not is_interactive():
            self._printed_at = time.monotonic()
            remaining = self._remaining_s
            print_status(self._text + ("" if remaining is None else f", {_format_left(remaining)}"))


class _TimeColumn(ProgressColumn):
    """Time left, counted down between events; the time so far where it is unknown."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        end_time = task.fields.get("end_time")
        if end_time is None:
            seconds = int(task.elapsed or 0)
            return Text(f"{seconds // 60}:{seconds % 60:02d} so far")
        return Text(_format_left(max(end_time - time.monotonic(), 0.0)))


def _format_left(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s left"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min left"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min left"


def _describe_event(event: Event, run: str, counts: str) -> str | None:
    """Describe an event that is printed on its own line; ``None`` for other events."""
    match event:
        case StartedEvent():
            run_cases = CaseCounts(event.labeled, event.validation, unlabeled=event.unlabeled)
            cases = counts or run_cases.describe()
            return f"Run {event.run}: {cases}; {event.device_reason}, {event.precision}"
        case ValidationEvent():
            dice = (
                "no case could be evaluated" if event.mean is None else f"{DICE} {event.mean:.3f}"
            )
            return f"Validation at step {event.step}: {dice}"
        case SemiSupervisedEvent():
            return describe_semi_supervised(event)
        case WarningEvent():
            return event.message
        case FinishedEvent() | StoppedEvent():
            dice = f", {VALIDATION_DICE} {event.dice:.3f}" if event.dice is not None else ""
            return (
                f"{event.event.capitalize()} at step {event.step} after {event.elapsed_s:.0f} s"
                f"{dice}. Run {run}{_next_step_hint(event, run)}"
            )
    return None


def _next_step_hint(event: FinishedEvent | StoppedEvent, run: str) -> str:
    if not event.step:
        return f" has not been trained yet. To train it, use --resume {run} and more time."
    if isinstance(event, StoppedEvent):
        return f" can be used for prediction, or resumed with --resume {run}."
    limit = "larger --steps" if event.reason == "steps" else "a larger --time-limit"
    return f" is ready for prediction. To train it longer, use --resume {run} with {limit}."
