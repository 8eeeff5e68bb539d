"""The command ``train``: its options, the resulting settings, and the progress of the run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_dycon.cli.console import StatusPrinter, make_progress_bar, print_event, print_status
from napari_dycon.cli.options import (
    DeviceOption,
    JsonOption,
    ProjectPath,
    open_project,
    parse_duration,
)
from napari_dycon.cli.run_lock import acquire_run, with_process_record
from napari_dycon.engine.config import (
    METHODS,
    TrainConfig,
    make_config,
    parse_overrides,
)
from napari_dycon.engine.presets import list_presets
from napari_dycon.errors import UserError
from napari_dycon.project.case_counts import count_cases
from napari_dycon.project.runs.events import (
    Event,
    FinishedEvent,
    PreparingEvent,
    RegistrationEvent,
    StartedEvent,
    StepEvent,
    StoppedEvent,
    ValidationEvent,
    WarningEvent,
)

if TYPE_CHECKING:
    from napari_dycon.project.runs.run import Run
    from napari_dycon.project.store import Project


@dataclass(frozen=True)
class TrainOptions:
    """Command line options that determine the settings of a run."""

    method: str
    preset: str
    steps: int | None
    time_limit_s: float | None
    device: str
    seed: int
    init_from: str | None
    overrides: list[str]

    def make_new_config(self, project: Project) -> TrainConfig:
        """Make the settings of a new run."""
        changes: dict[str, Any] = {
            "device": self.device,
            "seed": self.seed,
            "init_from": self._find_initial_run(project),
        }
        if self.time_limit_s is not None:
            changes["time_limit"] = self.time_limit_s
        if self.steps is not None:
            changes["steps"] = self.steps
        return make_config(self.method, self.preset, **(changes | self._parse_overrides()))

    def make_resumed_config(self, run: Run) -> TrainConfig:
        """Make the settings of a resumed run: its own, with new limits if given."""
        limits: dict[str, Any] = {}
        if self.steps is not None:
            limits["steps"] = self.steps
        if self.time_limit_s is not None:
            limits["time_limit"] = self.time_limit_s
        return TrainConfig.from_dict({**run.read_config(), **limits})

    def _find_initial_run(self, project: Project) -> str | None:
        if self.init_from is None:
            return None
        source = project.runs.get(self.init_from)
        if not source.has_weights:
            raise UserError(f"Run {source.id} has no weights to start from. Choose another run.")
        return source.id

    def _parse_overrides(self) -> dict[str, Any]:
        overrides = parse_overrides(self.overrides)
        for name in overrides.keys() & {"method", "preset"}:
            raise UserError(
                f"Expected --{name} {overrides[name]} instead of --set {name}={overrides[name]}."
            )
        return overrides


def train(
    context: typer.Context,
    project: ProjectPath,
    method: Annotated[
        str, typer.Option(help=f"Training method: one of {', '.join(METHODS)}.")
    ] = "dycon",
    preset: Annotated[
        str, typer.Option(help=f"Preset: one of {', '.join(list_presets())}.")
    ] = "default",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of training steps.")
    ] = None,
    time_limit: Annotated[
        str | None,
        typer.Option(
            help="Maximum training time, such as 90s, 10m or 2h (a number alone: seconds); "
            "includes the time before a resume."
        ),
    ] = None,
    device: DeviceOption = "auto",
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    resume: Annotated[str | None, typer.Option(help="Resume this run.")] = None,
    init_from: Annotated[
        str | None, typer.Option(help="Initialize a new run from the weights of this run.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting, as NAME=VALUE; repeatable."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a network on the scans of a project.

    Ctrl+C stops the run and saves its weights; --resume continues it. A resumed run keeps its
    settings; only --steps and --time-limit can be changed.
    """
    opened = open_project(project)
    run = None if resume is None else opened.runs.get(resume)
    if run is not None:
        _reject_conflicting_options(context)
        context.with_resource(acquire_run(run))
    options = TrainOptions(
        method=method,
        preset=preset,
        steps=steps,
        time_limit_s=None if time_limit is None else parse_duration(time_limit),
        device=device,
        seed=seed,
        init_from=init_from,
        overrides=set_ or [],
    )
    if run is not None:
        config = options.make_resumed_config(run)
    else:
        config = options.make_new_config(opened)
        _report_running(opened)
    from napari_dycon.engine.training.run import train as train_events  # imports torch

    events = train_events(opened, config, run)
    # A resumed run keeps the cases of its start, whatever their status is now.
    counts = "" if run is not None else count_cases(opened.cases).describe()
    show_training(with_process_record(events, opened, is_acquired=run is not None), as_json, counts)


def _reject_conflicting_options(context: typer.Context) -> None:
    """Reject options that a resumed run would ignore because it keeps its settings."""
    allowed = ("project", "resume", "steps", "time_limit", "as_json")
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name not in allowed and source is not None and source.name == "COMMANDLINE":
            raise UserError(
                f"{parameter.opts[0]} cannot be used with --resume: the run keeps its settings. "
                "Remove one of the two, or start a new run from the old weights with --init-from."
            )


def _report_running(project: Project) -> None:
    from napari_dycon.application.engine_process import is_running, remote_host

    for run in project.runs.list():
        if is_running(run) and not remote_host(run):
            print_status(f"Run {run.id} is also being trained; both runs will be slower.")


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
    run, print_occasionally = "", StatusPrinter()
    with make_progress_bar(as_json) as progress:
        task = progress.add_task("Starting", total=1.0)
        for event in events:
            if isinstance(event, StartedEvent):
                run = event.run
            if isinstance(event, (PreparingEvent, RegistrationEvent)):
                is_preparing = isinstance(event, PreparingEvent)
                verb = "Preparing scans:" if is_preparing else "Registering scans:"
                text = f"{verb} {event.done}/{event.total}"
                progress.update(task, description=text)
                print_occasionally(text)
            elif isinstance(event, StepEvent):
                text = f"Step {event.step}  loss {event.loss or float('nan'):.3f}"
                progress.update(task, completed=event.progress, description=text)
                print_occasionally(f"{text}, {event.progress:.0%}")
            elif message := _describe_event(event, run, counts):
                print_status(message)


def _describe_event(event: Event, run: str, counts: str) -> str | None:
    """Describe an event that is printed on its own line; ``None`` for other events."""
    match event:
        case StartedEvent():
            cases = counts or (
                f"{event.labeled} annotated, {event.validation} validation, "
                f"{event.unlabeled} unlabeled"
            )
            return f"Run {event.run}: {cases}; {event.device_reason}, {event.precision}"
        case ValidationEvent():
            dice = "–" if event.mean is None else f"{event.mean:.3f}"
            return f"Validation at step {event.step}: Dice {dice}"
        case WarningEvent():
            return event.message
        case FinishedEvent() | StoppedEvent():
            dice = f", validation Dice {event.dice:.4f}" if event.dice is not None else ""
            return (
                f"{event.event.capitalize()} at step {event.step} after {event.elapsed_s:.0f} s"
                f"{dice}. Run {run}{_next_step_hint(event)}"
            )
    return None


def _next_step_hint(event: FinishedEvent | StoppedEvent) -> str:
    if not event.step:
        return " has not been trained yet."
    if isinstance(event, StoppedEvent):
        return " can be resumed with --resume, or used for prediction."
    return (
        " is ready for prediction. To train it longer, use --resume with a larger --time-limit or "
        "--steps."
    )
