"""Commands for what comes of a project: predictions, how good they are, and files for others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_dycon.cli.console import (
    make_progress_bar,
    print_json,
    print_status,
    print_table,
    show_predictions,
)
from napari_dycon.cli.options import (
    RESAMPLE_HELP,
    JsonOption,
    ProjectPath,
    check_output_folder,
    open_project,
    parse_case_ids,
)
from napari_dycon.core.text import escape_control_characters
from napari_dycon.errors import DyconError, UserError

if TYPE_CHECKING:
    from napari_dycon.engine.checkpoints.checkpoint import TrainedModel
    from napari_dycon.project.importing.case_import import OnSkip
    from napari_dycon.project.importing.discovery import Scan

Event = dict[str, Any]


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
    as_json: JsonOption = False,
) -> None:
    """Predict masks, uncertainty and disagreement for a project's cases or a folder of scans.

    Scans that cannot be predicted are listed at the end, when the others are done; the exit code is
    2 then, or 1 where memory did not suffice for one.
    """
    from napari_dycon.cli.batch_predict import (
        FailedPrediction,
        predict_case_batch,
        predict_file_batch,
        summarize_failures,
    )
    from napari_dycon.core.containment import ensure_within

    opened = open_project(project)
    chosen = opened.runs.get(run)
    if not chosen.has_weights:
        raise UserError(f"Run {chosen.id} has no weights yet. Train it first.")
    if images is not None and cases is not None:
        raise UserError("Give either --images or --cases, not both.")
    if out is not None and images is None:
        raise UserError(
            "--out is for --images; a project's own cases go to its predictions folder."
        )
    if out is None:
        opened.require_writable()
    incomplete: list[FailedPrediction] = []  # patients of whom there is no scan to predict
    files: list[Scan] = []
    if images is not None:
        files = find_scans_to_predict(
            images,
            opened.channels,
            lambda one: incomplete.append(FailedPrediction(one.scan.name, one.error)),
        )
    ids = parse_case_ids(cases) if cases else [c.id for c in opened.cases]
    ids = [opened.get_case(case).id for case in ids]

    default_folder = (
        opened.path / "predictions" / f"{chosen.id}-{(images or Path()).resolve().name}"
    )
    folder = out or ensure_within(opened.path, default_folder)
    if images is not None:
        check_output_folder(files, folder, opened)
    from napari_dycon.engine.atlas.templates import attach_atlases
    from napari_dycon.engine.checkpoints.checkpoint import load_model
    from napari_dycon.engine.device import choose_device, choose_precision
    from napari_dycon.engine.inference.progress import PredictionProgress

    device_choice = choose_device(device)
    dtype = choose_precision("auto", device_choice.device)
    model = load_model(chosen.weights_path, device_choice.device)
    failures: list[FailedPrediction] = []
    total = len(files or ids)
    progress = PredictionProgress(total)

    def predict_all(model: TrainedModel, show: Callable[[Event], None]) -> None:
        model = attach_atlases(
            opened, chosen, model, device_choice.device, dtype, show, progress=progress
        )
        if images is not None:
            events = predict_file_batch(
                files, folder, model, device_choice.device, dtype, resample=resample, failures=failures,
                on_note=print_status, progress=progress,
            )  # fmt: skip
        else:
            events = predict_case_batch(
                opened, chosen.id, model, ids, device_choice.device, dtype, failures=failures, on_note=print_status,
                progress=progress,
            )  # fmt: skip
        for event in events:
            show(event)

    def report_failures() -> list[FailedPrediction]:
        all_failures = incomplete + failures
        for failure in all_failures:
            if as_json:
                print_json(failure.to_event())
            elif len(all_failures) > 1:
                print_status(f"{failure.name} was left out: {failure.error}")
        return all_failures

    try:
        with show_predictions(total, str(device_choice.device.type), as_json) as show:
            predict_all(model, show)
    except DyconError:
        report_failures()
        raise
    if not as_json:
        output_folder = folder if images is not None else opened.path / "predictions" / chosen.id
        count = total - len(failures)
        typer.echo(
            escape_control_characters(
                f"{count} prediction(s) of run {chosen.id} in {output_folder}"
            )
        )
    if all_failures := report_failures():
        raise summarize_failures(all_failures, total + len(incomplete))


def find_scans_to_predict(images: Path, channels: Sequence[str], skip: OnSkip) -> list[Scan]:
    """Find the scans to predict in a data set, in folders of patients or in one of files.

    ``skip`` is given patients who lack a channel.
    """
    from napari_dycon.project.importing.discovery import contains_scans, find_scans
    from napari_dycon.project.importing.import_plan import scans_from_layout
    from napari_dycon.project.importing.patient_folders import find_patient_folders

    dataset = scans_from_layout(images, channels, on_skip=skip)
    if dataset:
        return dataset
    if len(channels) > 1 and not contains_scans(images):
        return find_patient_folders(images, channels, on_skip=skip)
    return find_scans(images, "images")


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder of predicted masks.")],
    references: Annotated[Path, typer.Argument(help="Folder of true masks, named alike.")],
    structures: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=254,
            help="Structures the network tells apart, should some occur in no file; "
            "the calibration error depends on it.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare masks: Dice, Jaccard, HD95 and ASD in mm, volumes in ml, calibration."""
    from napari_dycon.engine.evaluation.folders import evaluate_folders

    with make_progress_bar(as_json) as progress:
        task = progress.add_task("Comparing", total=None)
        result = evaluate_folders(
            predictions,
            references,
            lambda done, total, name: progress.update(
                task, completed=done, total=total, description=f"Compared {name}"
            ),
            n_structures=structures,
        )
    if as_json:
        print_json(result)
        return
    from napari_dycon.demo.summary import (
        MISSING_NOTE,
        build_evaluation_table,
        has_missing_structures,
    )

    print_table(build_evaluation_table(result))
    if has_missing_structures(result):
        print_status(MISSING_NOTE)
    for line in result.get("warnings", []):
        print_status(line)


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
    as_json: JsonOption = False,
) -> None:
    """Write masks, a data set, the network or a report for other programs and people."""
    from napari_dycon.exports.registry import export as write
    from napari_dycon.exports.registry import parse_codes

    opened = open_project(project)
    codes = parse_codes(opened, code) if code else None
    with make_progress_bar(as_json) as progress:
        task = progress.add_task("Exporting", total=None)
        written = write(
            opened,
            format_,
            out,
            source=what,
            run=run,
            cases=parse_case_ids(cases) if cases else None,
            uncertainty=uncertainty,
            keep_identity=keep_identity,
            codes=codes,
            on_note=print_status,
            on_progress=lambda done, total, name: progress.update(
                task, completed=done, total=total, description=f"Exported {name}"
            ),
        )
    if as_json:
        print_json({"format": format_, "written": [str(path) for path in written]})
    else:
        typer.echo(escape_control_characters(f"{len(written)} file(s) or folder(s) in {out}"))
