"""The ``napari-dycon`` command: what the window does, for scripts and machines without one.

Results go to standard output (with ``--json`` as JSON), everything else to standard error. Exit
code 0 is success, 2 a user's mistake told in one line, 1 a failure.
"""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_dycon import __version__
from napari_dycon.cli.console import (
    make_progress_bar,
    print_status,
    show_cases,
    show_demo,
    show_training,
)
from napari_dycon.cli.options import (
    RESAMPLE_HELP,
    Event,
    JsonOption,
    ProjectPath,
    acquire_run,
    open_project,
    parse_duration,
    reject_conflicting_options,
    with_process_record,
)
from napari_dycon.cli.results import evaluate, export, predict
from napari_dycon.core.crash_report import describe_error
from napari_dycon.engine.config import METHODS, list_presets
from napari_dycon.errors import DyconError, UserError

if TYPE_CHECKING:
    from napari_dycon.project.importing.case_import import SkippedScan
    from napari_dycon.project.runs.run import Run

app = typer.Typer(
    name="napari-dycon",
    help="Annotate 3D scans, train DyCON on them, see where it is unsure.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


INTERRUPT_EXIT_CODE = 130  # as shells number it


def main() -> None:
    """Run the command; a mistake or failure is one line on standard error and an exit code."""
    # Notes of libraries to programmers help nobody at a terminal.
    warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):  # names may hold any letters, also on Windows
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() != "utf-8":
            stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        code = app(standalone_mode=False)  # typer returns an exit code, also that of Ctrl+C
        if code == INTERRUPT_EXIT_CODE:
            raise KeyboardInterrupt
        if isinstance(code, int):
            sys.exit(code)
    except typer.Exit as exit_:
        sys.exit(exit_.exit_code)
    except typer.Abort:
        sys.exit(1)
    except KeyboardInterrupt:
        print_status("Stopped.")
        sys.exit(1)
    except DyconError as error:
        print_status(str(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        # typer's own usage errors carry a message and the exit code 2.
        if hasattr(error, "format_message"):
            print_status(error.format_message())
            sys.exit(getattr(error, "exit_code", 2))
        print_status(describe_error(error))
        sys.exit(1)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that is made.")] = Path(
        "dycon-demo"
    ),
    headless: Annotated[bool, typer.Option("--headless", help="Open no window.")] = False,
    screenshot: Annotated[
        bool, typer.Option("--screenshot", help="Run in the window, save pictures, close.")
    ] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the whole loop on a built-in synthetic cohort."""
    from napari_dycon.demo.run import run_demo

    with show_demo(as_json) as show:
        run_demo(out, window=not headless, close=screenshot, steps=steps, on_event=show)


@app.command()
def gui(
    project: Annotated[Path | None, typer.Argument(help="Project to open.")] = None,
) -> None:
    """Open napari with the DyCON panel."""
    if project is not None:
        open_project(project)  # a mistake is told here and not in a window
    from napari_dycon.widgets.app import open_window

    open_window(project)


@app.command()
def new(
    project: ProjectPath,
    images: Annotated[
        Path, typer.Option(help="Folder of scans: NIfTI, NRRD, MetaImage or DICOM series.")
    ],
    labels: Annotated[
        Path | None, typer.Option(help="Folder of labels named like their scans.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Names of classes 1, 2, ..., separated by commas.")
    ] = None,
    labeled: Annotated[
        int | None, typer.Option(min=0, help="Take labels for this many cases only, by name.")
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(help="Channels to find in each patient's folder, separated by commas."),
    ] = None,
    resample: Annotated[bool, typer.Option("--resample", help=RESAMPLE_HELP)] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a project from a folder of scans; scans without a label are unlabeled.

    Scans that cannot be used are left out and listed at the end.

    The layouts of nnU-Net raw, the Medical Segmentation Decathlon, BraTS 2019, ISLES 2022, the left
    atrium challenge and Pancreas-CT are recognized: their channels and labels come along.
    """
    from napari_dycon.project.importing.create_project import create_project

    names = None if classes is None else [name.strip() for name in classes.split(",")]
    skipped: list[SkippedScan] = []
    with make_progress_bar(as_json) as progress:
        task = progress.add_task("Reading scans", total=None)
        created = create_project(
            project,
            images,
            labels,
            names,
            lambda done, total, name: progress.update(
                task, completed=done, total=total, description=f"Reading {name}"
            ),
            n_labeled=labeled,
            channels=None if channels is None else [n.strip() for n in channels.split(",")],
            resample=resample,
            on_note=print_status,
            on_skip=skipped.append,
        )
    show_cases(created, as_json, [one.to_dict() for one in skipped])
    for one in skipped:
        print_status(one.message)


@app.command()
def cases(project: ProjectPath, as_json: JsonOption = False) -> None:
    """List the cases of a project."""

    show_cases(open_project(project), as_json)


@app.command()
def train(
    context: typer.Context,
    project: ProjectPath,
    method: Annotated[
        str,
        typer.Option(help=f"One of {', '.join(METHODS)}."),
    ] = "dycon",
    preset: Annotated[
        str,
        typer.Option(help=f"Recipe, one of {', '.join(list_presets())}."),
    ] = "default",
    steps: Annotated[int | None, typer.Option(min=1, help="Most training steps.")] = None,
    time_limit: Annotated[
        str | None, typer.Option(help="Most time, such as 90s, 10m or 2h; in all when resumed.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cuda, mps or cpu.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    resume: Annotated[str | None, typer.Option(help="Go on with this run.")] = None,
    start_from: Annotated[
        str | None, typer.Option(help="Start a new run from the weights of this one.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting, as name=value.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train on a project.

    Ctrl+C ends a run and keeps what it learned; --resume goes on with it, with its own settings
    and, where given, another --steps or --time-limit.
    """
    from napari_dycon.application.engine_process import is_running, remote_host
    from napari_dycon.engine.config import TrainConfig, make_config, parse_overrides

    opened = open_project(project)
    run: Run | None = None
    if resume is not None:
        run = opened.runs.get(resume)
        reject_conflicting_options(context)
        context.with_resource(acquire_run(run))
        extended_limits: Event = {"steps": steps} if steps is not None else {}
        if time_limit is not None:
            extended_limits["time_limit"] = parse_duration(time_limit)
        config = TrainConfig.from_dict({**run.read_config(), **extended_limits})
    else:
        changes: Event = {"device": device, "seed": seed, "init_from": start_from}
        if start_from is not None:
            source = opened.runs.get(start_from)
            if not source.has_weights:
                raise UserError(f"Run {source.id} has no weights to start from. Choose another.")
            changes["init_from"] = source.id
        if time_limit is not None:
            changes["time_limit"] = parse_duration(time_limit)
            # A limit of time alone: the steps must not end the run first.
            changes["steps"] = 10_000_000
        if steps is not None:
            changes["steps"] = steps
        parsed_overrides = parse_overrides(set_ or [])
        for name in parsed_overrides.keys() & {"method", "preset"}:
            raise UserError(
                f"Expected --{name} {parsed_overrides[name]} instead of --set {name}={parsed_overrides[name]}."
            )
        config = make_config(method, preset, **(changes | parsed_overrides))
        for other in opened.runs.list():
            if is_running(other) and not remote_host(other):
                print_status(f"Run {other.id} is being trained too; each will slow the other down.")
    from napari_dycon.engine.training.run import train as train_events

    show_training(
        with_process_record(train_events(opened, config, run), opened, is_acquired=run is not None),
        as_json,
    )


for command in (predict, evaluate, export):
    app.command()(command)
