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
from napari_dycon.cli_support import (
    Event,
    case_ids,
    identified,
    keep_scans,
    open_project,
    parse_time,
    refuse_other_settings,
    take_up,
)
from napari_dycon.errors import DyconError, UserError
from napari_dycon.plain_text import printable
from napari_dycon.terminal import (
    errors,
    print_json,
    print_table,
    progress_bar,
    say,
    show_cases,
    show_training,
    tell,
)

if TYPE_CHECKING:
    from napari_dycon.project.runs import Run

app = typer.Typer(
    name="napari-dycon",
    help="Annotate 3D scans, train DyCON on them, see where it is unsure.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON on standard output.")]
RESAMPLE_HELP = "Interpolate DICOM slices that are uneven or tilted to even ones."
ProjectPath = Annotated[Path, typer.Argument(help="Folder of the project.")]


def main() -> None:
    """Run the command; a mistake or failure is one line on standard error and an exit code."""
    # Notes of libraries to programmers help nobody at a terminal.
    warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):  # names may hold any letters, also on Windows
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() != "utf-8":
            stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        app(standalone_mode=False)
    except typer.Exit as exit_:
        sys.exit(exit_.exit_code)
    except typer.Abort:
        sys.exit(1)
    except KeyboardInterrupt:
        tell("Stopped.")
        sys.exit(1)
    except DyconError as error:
        tell(str(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        # typer's own usage errors carry a message and the exit code 2.
        if hasattr(error, "format_message"):
            tell(error.format_message())
            sys.exit(getattr(error, "exit_code", 2))
        tell(f"Unexpected failure: {error!r}")
        sys.exit(1)


def _version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
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
    as_json: AsJson = False,
) -> None:
    """Run the whole loop on a built-in synthetic cohort."""
    from napari_dycon.demo import run_demo

    run_demo(
        out,
        window=not headless,
        close=screenshot,
        steps=steps,
        say=lambda event: say(event, as_json),
    )


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
    labelled: Annotated[
        int | None, typer.Option(min=0, help="Take labels for this many cases only, by name.")
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(help="Channels to find in each patient's folder, separated by commas."),
    ] = None,
    resample: Annotated[bool, typer.Option("--resample", help=RESAMPLE_HELP)] = False,
    as_json: AsJson = False,
) -> None:
    """Make a project from a folder of scans; scans without a label are unlabelled.

    The layouts of nnU-Net raw, the Medical Segmentation Decathlon, BraTS 2019, ISLES 2022, the left
    atrium challenge and Pancreas-CT are recognised: their channels and labels come along.
    """
    from napari_dycon.project.importers import project_from_folder

    names = None if classes is None else [name.strip() for name in classes.split(",")]
    with progress_bar(as_json) as progress:
        task = progress.add_task("Reading scans", total=None)
        made = project_from_folder(
            project,
            images,
            labels,
            names,
            lambda done, total, name: progress.update(
                task, completed=done, total=total, description=f"Reading {name}"
            ),
            labelled=labelled,
            channels=None if channels is None else [n.strip() for n in channels.split(",")],
            resample=resample,
            note=tell,
        )
    show_cases(made, as_json)


@app.command()
def cases(project: ProjectPath, as_json: AsJson = False) -> None:
    """List the cases of a project."""

    show_cases(open_project(project), as_json)


@app.command()
def train(
    context: typer.Context,
    project: ProjectPath,
    method: Annotated[
        str,
        typer.Option(help="dycon, secl-region, secl-anatomical, mean-teacher or supervised."),
    ] = "dycon",
    preset: Annotated[str, typer.Option(help="Recipe: default or paper.")] = "default",
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
    as_json: AsJson = False,
) -> None:
    """Train on a project.

    Ctrl+C ends a run and keeps what it learnt; --resume goes on with it, with its own settings and,
    where given, another --steps or --time-limit.
    """
    from napari_dycon.engine.config import TrainConfig, make_config, parse_overrides
    from napari_dycon.jobs import is_running

    opened = open_project(project)
    run: Run | None = None
    if resume is not None:
        run = opened.run(resume)
        refuse_other_settings(context)
        take_up(run)
        longer: Event = {"steps": steps} if steps is not None else {}
        if time_limit is not None:
            longer["time_limit"] = parse_time(time_limit)
        config = TrainConfig.from_dict({**run.read_config(), **longer})
    else:
        changes: Event = {"device": device, "seed": seed, "init_from": start_from}
        if start_from is not None:
            source = opened.run(start_from)
            if not source.has_weights:
                raise UserError(f"Run {source.id} has no weights to start from. Choose another.")
            changes["init_from"] = source.id
        if time_limit is not None:
            changes["time_limit"] = parse_time(time_limit)
            # A limit of time alone: the steps must not end the run first.
            changes["steps"] = 10_000_000
        if steps is not None:
            changes["steps"] = steps
        config = make_config(method, preset, **(changes | parse_overrides(set_ or [])))
        for other in opened.runs():
            if is_running(other):
                tell(f"Run {other.id} is being trained too; each will slow the other down.")
    from napari_dycon.engine.train import train as train_events

    show_training(identified(train_events(opened, config, run), opened), as_json)


@app.command()
def predict(
    project: ProjectPath,
    run: Annotated[str | None, typer.Option(help="Run to predict with; the newest.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of other scans to predict.")] = None,
    cases: Annotated[
        str | None,
        typer.Option(help="Cases, separated by commas, or @FILE with one a line; all."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results of --images.")] = None,
    resample: Annotated[bool, typer.Option("--resample", help=RESAMPLE_HELP)] = False,
    device: Annotated[str, typer.Option(help="auto, cuda, mps or cpu.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Predict masks, uncertainty and disagreement for a project's cases or a folder of scans."""
    from napari_dycon.project.atomic import inside, make_folder
    from napari_dycon.project.scans import scans_in

    opened = open_project(project)
    chosen = opened.run(run)
    if not chosen.has_weights:
        raise UserError(f"Run {chosen.id} has no weights yet. Train it first.")
    if images is not None and cases is not None:
        raise UserError("Give either --images or --cases, not both.")
    if out is not None and images is None:
        raise UserError(
            "--out is for --images; a project's own cases go to its predictions folder."
        )
    files = scans_in(images, "images") if images is not None else []
    ids = case_ids(cases) if cases else [c.id for c in opened.cases]
    ids = [opened.case(case).id for case in ids]

    name = f"{chosen.id}-{(images or Path()).resolve().name}"
    folder = out or inside(opened.path, opened.path / "predictions" / name)
    if images is not None:
        keep_scans(files, folder, opened)
    from napari_dycon.engine.checkpoint import load_model
    from napari_dycon.engine.device import choose_device, choose_precision
    from napari_dycon.engine.predict import check_files, predict_cases, predict_files

    picked = choose_device(device)
    dtype = choose_precision("auto", picked.device)
    model = load_model(chosen.weights_path, picked.device)
    if images is not None:
        check_files(
            files,
            model,
            resample=resample,
            note=tell,
        )
        make_folder(folder)
        events = predict_files(files, folder, model, picked.device, dtype, resample=resample)
    else:
        events = predict_cases(opened, chosen.id, model, ids, picked.device, dtype)
    if as_json:
        for event in events:
            print_json(event)
        return
    with progress_bar(as_json) as progress:
        task = progress.add_task(f"Predicting on {picked.device.type}", total=len(files or ids))
        if not errors.is_terminal:  # a large scan takes minutes, and no bar shows it
            tell(f"Predicting {len(files or ids)} scan(s) on {picked.device.type}")
        for event in events:
            progress.update(task, completed=event["done"], description=f"Predicted {event['case']}")
            if not errors.is_terminal:
                tell(f"Predicted {event['case']}")
    place = folder if images is not None else opened.path / "predictions" / chosen.id
    typer.echo(printable(f"{len(files or ids)} prediction(s) of run {chosen.id} in {place}"))


@app.command()
def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder of predicted masks.")],
    references: Annotated[Path, typer.Argument(help="Folder of true masks, named alike.")],
    as_json: AsJson = False,
) -> None:
    """Compare masks: Dice, Jaccard, HD95 and ASD in mm, volumes in ml, calibration."""
    from napari_dycon.engine.evaluation import evaluate_folders

    with progress_bar(as_json) as progress:
        task = progress.add_task("Comparing", total=None)
        result = evaluate_folders(
            predictions,
            references,
            lambda done, total, name: progress.update(
                task, completed=done, total=total, description=f"Compared {name}"
            ),
        )
    if as_json:
        print_json(result)
        return
    from napari_dycon.report import evaluation_table

    print_table(evaluation_table(result))
    for line in result.get("warnings", []):
        tell(line)


@app.command()
def export(
    project: ProjectPath,
    format_: Annotated[
        str,
        typer.Option("--format", help="nifti, nrrd, dicom-seg, nnunet, monai-bundle or report."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for what is written.")],
    what: Annotated[
        str,
        typer.Option(help="labels, predictions, or best: labels, completed by predictions."),
    ] = "best",
    run: Annotated[str | None, typer.Option(help="Whose predictions or weights; newest.")] = None,
    cases: Annotated[
        str | None,
        typer.Option(help="Cases, separated by commas, or @FILE with one a line; all."),
    ] = None,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Also the uncertainty of each prediction.")
    ] = False,
    code: Annotated[
        list[str] | None,
        typer.Option(help="Coded term of a structure for DICOM, as NAME=WORDS; repeatable."),
    ] = None,
    keep_identity: Annotated[
        bool,
        typer.Option("--keep-identity", help="Of DICOM, keep the patient's name, id and dates."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write masks, a data set, the network or a report for other programs and people."""
    from napari_dycon.exports.export import chosen_codes
    from napari_dycon.exports.export import export as write

    opened = open_project(project)
    codes = chosen_codes(opened, code) if code else None
    with progress_bar(as_json) as progress:
        task = progress.add_task("Exporting", total=None)
        written = write(
            opened,
            format_,
            out,
            what=what,
            run=run,
            cases=case_ids(cases) if cases else None,
            uncertainty=uncertainty,
            keep_identity=keep_identity,
            codes=codes,
            note=tell,
            progress=lambda done, total, name: progress.update(
                task, completed=done, total=total, description=f"Exported {name}"
            ),
        )
    if as_json:
        print_json({"format": format_, "written": [str(path) for path in written]})
    else:
        typer.echo(printable(f"{len(written)} file(s) or folder(s) in {out}"))
