"""The command ``train``: its options, the resulting settings, and the progress of the run."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_dycon.cli.console import print_status
from napari_dycon.cli.durations import parse_duration
from napari_dycon.cli.options import (
    DeviceOption,
    JsonOption,
    ProjectPath,
    open_project,
)
from napari_dycon.cli.run_lock import acquire_run, with_process_record
from napari_dycon.cli.training_display import show_training
from napari_dycon.core.durations import format_elapsed
from napari_dycon.engine.config import (
    METHODS,
    TrainConfig,
    make_config,
    parse_overrides,
)
from napari_dycon.engine.presets import list_presets
from napari_dycon.errors import DyconError, UserError
from napari_dycon.project.case_counts import count_cases
from napari_dycon.project.runs.events import Event, FinishedEvent
from napari_dycon.project.runs.run_facts import read_run_facts

if TYPE_CHECKING:
    from napari_dycon.project.runs.run import Run
    from napari_dycon.project.store import Project

# Settings with a command line option of their own, which --set would override unnoticed.
SETTINGS_WITH_OPTION = {
    "method", "preset", "steps", "time_limit", "device", "seed", "init_from",
}  # fmt: skip


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
        for name in overrides.keys() & SETTINGS_WITH_OPTION:
            option = f"--{name.replace('_', '-')}"
            value = "TIME, such as 10m" if name == "time_limit" else overrides[name]
            raise UserError(f"Expected {option} {value} instead of --set {name}={overrides[name]}.")
        return overrides


def train(
    context: typer.Context,
    project: ProjectPath,
    method: Annotated[
        str,
        typer.Option(metavar="NAME", help=f"Training method: one of {', '.join(METHODS)}."),
    ] = "dycon",
    preset: Annotated[
        str,
        typer.Option(metavar="NAME", help=f"Preset: one of {', '.join(list_presets())}."),
    ] = "default",
    steps: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Maximum number of training steps."),
    ] = None,
    time_limit: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Duration of the run, everything included, such as 90s, 10m or 1h30m; counts the "
            "time before a resume.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    seed: Annotated[int, typer.Option(metavar="N", help="Random seed.")] = 0,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Resume this run, such as 001-dycon.")
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Initialize a new run from the weights of this run."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Change a setting; repeatable."),
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
        if steps is not None or time_limit is not None:  # scripts may resume what is complete
            _require_remaining(run, config)
    else:
        config = options.make_new_config(opened)
        _report_running(opened)
    events = with_process_record(_train(opened, config, run), opened, is_acquired=run is not None)
    # A resumed run keeps the cases of its start, whatever their status is now.
    counts = "" if run is not None else count_cases(opened.cases).describe()
    try:
        show_training(_fail_without_steps(events), as_json, counts)
    except DyconError as error:
        if run is None or not _writes_to_log(run):
            raise
        from napari_dycon.project.runs.run_log import RunLog

        print_status(RunLog.for_project(run, opened).hide_names(str(error)))
        raise typer.Exit(error.exit_code) from error


def _train(project: Project, config: TrainConfig, run: Run | None) -> Iterator[Event]:
    """Train; yields events. Importing torch takes seconds, while the progress is shown already."""
    begin = time.monotonic()
    from napari_dycon.engine.training.run import train as train_events

    yield from train_events(project, config, run, elapsed_s=time.monotonic() - begin)


def _fail_without_steps(events: Iterator[Event]) -> Iterator[Event]:
    """Yield the events of a run; exit with code 1 if it ended before it learned anything."""
    event: Event | None = None
    for event in events:
        yield event
    if isinstance(event, FinishedEvent) and not event.step:
        raise typer.Exit(1)


def _writes_to_log(run: Run) -> bool:
    """Return whether standard error of this process is the log of the run, which names no case."""
    try:
        return os.path.samestat(os.fstat(2), run.log_path.stat())
    except OSError:
        return False


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


def _require_remaining(run: Run, config: TrainConfig) -> None:
    """Reject given limits that leave a complete run nothing to do."""
    facts = read_run_facts(run)
    if facts.outcome not in ("finished", "stopped") or not facts.steps:
        return
    elapsed_s = facts.elapsed_s or 0.0
    previous = TrainConfig.from_dict(run.read_config())
    limit_s, previous_s = config.time_limit, previous.time_limit or math.inf
    ended_by_time = facts.outcome == "finished" and facts.steps < previous.steps
    if limit_s is not None and (elapsed_s >= limit_s or (ended_by_time and limit_s <= previous_s)):
        raise UserError(
            f"Run {run.id} was trained for {format_elapsed(elapsed_s)} already, which counts "
            f"towards its time limit of {format_elapsed(limit_s)}. Give a larger --time-limit."
        )
    if facts.steps >= config.steps:
        raise UserError(
            f"Run {run.id} has taken {facts.steps} steps already, which count towards its limit of "
            f"{config.steps}. Give larger --steps."
        )


def _report_running(project: Project) -> None:
    from napari_dycon.application.engine_process import is_running, remote_host

    for run in project.runs.list():
        if is_running(run) and not remote_host(run):
            print_status(f"Run {run.id} is also being trained; both runs will be slower.")
