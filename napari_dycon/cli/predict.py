"""The command ``predict``: masks and uncertainty maps of a project's cases or of other scans."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, NoReturn

import typer

from napari_dycon.cli.console import print_event, print_status
from napari_dycon.cli.options import (
    CasesOption,
    DeviceOption,
    JsonOption,
    ProjectPath,
    ResampleOption,
    open_project,
    parse_case_ids,
)
from napari_dycon.cli.prediction_display import show_predictions
from napari_dycon.cli.runs import describe_choice
from napari_dycon.core.atomic import abandon_writes
from napari_dycon.core.text import escape_control_characters
from napari_dycon.core.wording import format_count
from napari_dycon.engine.inference.progress import PredictionProgress
from napari_dycon.errors import DyconError, UserError
from napari_dycon.project.runs.events import PredictionStartedEvent, PredictionSummaryEvent

if TYPE_CHECKING:
    import torch

    from napari_dycon.cli.batch_predict import FailedPrediction
    from napari_dycon.engine.checkpoints.model_file import TrainedModel
    from napari_dycon.project.importing.case_import import OnSkip
    from napari_dycon.project.importing.discovery import Scan
    from napari_dycon.project.prediction_origin import PredictionOrigin
    from napari_dycon.project.runs.run import Run
    from napari_dycon.project.store import Project

CANCELED_EXIT_CODE = 130  # as after Ctrl+C in shells
WRITE_TIMEOUT_S = 1.0  # for files that are being written when a prediction is canceled


class LoadedNetwork(NamedTuple):
    """A trained network with its device and precision."""

    model: TrainedModel
    device: torch.device
    dtype: torch.dtype


@dataclass(frozen=True)
class PredictionInputs:
    """Scans to predict and the output folder.

    Attributes
    ----------
    scans : scans to predict; ``None`` if cases of the project are predicted
    case_ids : cases of the project
    folder : output folder
    incomplete : patients that lack a channel, and the reasons
    """

    scans: list[Scan] | None
    case_ids: list[str]
    folder: Path
    incomplete: list[tuple[str, DyconError]] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of scans to predict."""
        return len(self.case_ids if self.scans is None else self.scans)

    @property
    def masks(self) -> list[Path]:
        """Masks that will be written."""
        names = self.case_ids if self.scans is None else [scan.name for scan in self.scans]
        return [self.folder / f"{name}.nii.gz" for name in names]


def predict(
    project: ProjectPath,
    run: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Run to predict with. Default: newest run with weights."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder of scans to predict instead of the project's cases."
        ),
    ] = None,
    cases: CasesOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Output folder for --images. Default: a folder in the project's predictions.",
        ),
    ] = None,
    resample: ResampleOption = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    preliminary: Annotated[int, typer.Option(min=0, hidden=True)] = 0,
    end_with_input: Annotated[bool, typer.Option("--end-with-input", hidden=True)] = False,
) -> None:
    """Predict masks, uncertainty and disagreement for a project's cases or a folder of scans.

    Scans that cannot be predicted are left out and listed at the end. The exit code is then 2, or 1
    if a scan was too large for the available memory.
    """
    if end_with_input:
        threading.Thread(target=_end_with_input, name="cancel", daemon=True).start()
    opened = open_project(project)
    chosen = opened.runs.get(run)
    inputs = _resolve_inputs(opened, chosen, images, cases, out)
    origin = _report_start(opened, chosen, inputs, as_json, is_default=run is None)
    failures = _predict_inputs(
        opened, chosen, inputs, device, resample, as_json, preliminary, origin
    )
    _report_end(chosen, inputs, failures, as_json)
    from napari_dycon.cli.batch_predict import FailedPrediction, summarize_failures

    all_failures = [FailedPrediction(*one) for one in inputs.incomplete] + failures
    _report_failures(all_failures, as_json)
    if all_failures:
        raise summarize_failures(all_failures, inputs.count + len(inputs.incomplete))
    if end_with_input:
        _end_now(0)


def _report_start(
    project: Project, run: Run, inputs: PredictionInputs, as_json: bool, *, is_default: bool
) -> PredictionOrigin:
    """Say which run predicts and which files it replaces; returns the record of the predictions."""
    from napari_dycon.project.prediction_origin import build_origin, count_replaced
    from napari_dycon.project.runs.run_facts import read_run_facts

    facts = read_run_facts(run)
    origin = build_origin(run, facts, project.classes)
    replaced = count_replaced(inputs.masks, origin)
    if as_json:
        event = PredictionStartedEvent(
            run=run.id,
            is_default=is_default,
            step=facts.steps,
            trained=facts.trained,
            dice=facts.dice,
            total=inputs.count,
            folder=str(inputs.folder),
            replaced=replaced,
        )
        print_event(event)
        return origin
    what = format_count(inputs.count, "case" if inputs.scans is None else "scan")
    first = f"Predicting {what} with run {run.id}"
    for line in (first, *describe_choice(project, run, is_default=is_default)):
        print_status(line)
    for description, count in replaced.items():
        what = format_count(count, "prediction")
        print_status(f"Replacing {what} of {description} in {inputs.folder}.")
    return origin


def _report_end(
    run: Run, inputs: PredictionInputs, failures: Sequence[FailedPrediction], as_json: bool
) -> None:
    """Say how many predictions were written, and where."""
    n_predicted = inputs.count - len(failures)
    if as_json:
        n_failed = len(failures) + len(inputs.incomplete)
        folder = str(inputs.folder)
        print_event(
            PredictionSummaryEvent(
                run=run.id, folder=folder, predicted=n_predicted, failed=n_failed
            )
        )
        return
    text = f"{format_count(n_predicted, 'prediction')} of run {run.id} in {inputs.folder}"
    typer.echo(escape_control_characters(text))


def _end_with_input() -> None:
    """End this process at the end of its input: the window canceled it, or has gone.

    Files of finished scans are kept, and files that are being written become complete or are
    removed. Computations cannot be interrupted, so that the process ends at once.
    """
    try:
        while os.read(sys.stdin.fileno(), 1024):
            pass
    except OSError:
        pass
    abandon_writes(WRITE_TIMEOUT_S)
    os._exit(CANCELED_EXIT_CODE)


def _end_now(code: int) -> NoReturn:
    """End this process without the seconds that Python needs to unload its modules."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _resolve_inputs(
    project: Project, run: Run, images: Path | None, cases: str | None, out: Path | None
) -> PredictionInputs:
    """Find the scans to predict, and check all options before anything is computed."""
    from napari_dycon.core.containment import ensure_within

    if not run.has_weights:
        raise UserError(f"Run {run.id} has no weights yet. Train it first.")
    if images is not None and cases is not None:
        raise UserError("Give either --images or --cases, not both.")
    if out is not None and images is None:
        raise UserError(
            "--out requires --images; predictions of a project's cases are written to its "
            "predictions folder."
        )
    if out is None:
        project.require_writable()
    incomplete: list[tuple[str, DyconError]] = []
    scans = (
        None
        if images is None
        else find_scans_to_predict(
            images,
            project.channels,
            lambda skip: incomplete.append((skip.scan.name, skip.error)),
        )
    )
    ids = parse_case_ids(cases) if cases else [case.id for case in project.cases]
    ids = [project.get_case(case_id).id for case_id in ids]
    predictions = project.path / "predictions"
    if scans is None:
        return PredictionInputs(None, ids, ensure_within(project.path, predictions / run.id))
    assert images is not None
    default_folder = predictions / f"{run.id}-{images.resolve().name}"
    folder = out or ensure_within(project.path, default_folder)
    check_output_folder(scans, folder, project)
    return PredictionInputs(scans, ids, folder, incomplete)


def _load_network(run: Run, device: str) -> LoadedNetwork:
    from napari_dycon.engine.checkpoints.model_file import load_model
    from napari_dycon.engine.device import choose_device, choose_precision

    chosen_device = choose_device(device).device
    dtype = choose_precision("auto", chosen_device)
    return LoadedNetwork(load_model(run.weights_path, chosen_device), chosen_device, dtype)


def _predict_inputs(
    project: Project,
    run: Run,
    inputs: PredictionInputs,
    device_name: str,
    resample: bool,
    as_json: bool,
    n_preliminary: int,
    origin: PredictionOrigin,
) -> list[FailedPrediction]:
    """Predict and show the progress; returns scans that failed.

    Parameters
    ----------
    n_preliminary : cases, from the first on, that are predicted by one network alone before
    """
    progress = PredictionProgress(inputs.count)
    failures: list[FailedPrediction] = []
    with show_predictions(progress, as_json) as show:
        from napari_dycon.cli.batch_predict import (
            FailedPrediction,
            predict_case_batch,
            predict_file_batch,
        )
        from napari_dycon.engine.atlas.templates import attach_atlases
        from napari_dycon.engine.inference.predict_scans import plan_comparison
        from napari_dycon.engine.inference.preliminary import predict_preliminary

        model, device, dtype = _load_network(run, device_name)
        first_cases = inputs.case_ids[:n_preliminary]
        for event in predict_preliminary(
            project, run.id, model, first_cases, device, dtype, progress
        ):
            show(event)
        if inputs.scans is None:
            plan_comparison(progress, project, run.id, model, inputs.case_ids)
        model = attach_atlases(project, run, model, device, dtype, show, progress=progress)
        if inputs.scans is not None:
            events = predict_file_batch(
                inputs.scans, inputs.folder, model, device, dtype, resample=resample,
                failures=failures, on_note=print_status, progress=progress, origin=origin,
            )  # fmt: skip
        else:
            events = predict_case_batch(
                project, run.id, model, inputs.case_ids, device, dtype, failures=failures,
                on_note=print_status, progress=progress, origin=origin,
            )  # fmt: skip
        try:
            for event in events:
                show(event)
        except DyconError:
            incomplete = [FailedPrediction(*one) for one in inputs.incomplete]
            _report_failures(incomplete + failures, as_json)
            raise
    return failures


def _report_failures(failures: Sequence[FailedPrediction], as_json: bool) -> None:
    for failure in failures:
        if as_json:
            print_event(failure.to_event())
        elif len(failures) > 1:  # a single failure is part of the final error
            print_status(f"{failure.name} was left out: {failure.error}")


def find_scans_to_predict(images: Path, channels: Sequence[str], on_skip: OnSkip) -> list[Scan]:
    """Find the scans to predict in a dataset, in patient folders or in a folder of files.

    ``on_skip`` is called with each patient that lacks a channel.
    """
    from napari_dycon.project.importing.discovery import contains_scans, find_scans
    from napari_dycon.project.importing.import_plan import scans_from_layout
    from napari_dycon.project.importing.patient_folders import find_patient_folders

    dataset = scans_from_layout(images, channels, on_skip=on_skip)
    if dataset:
        return dataset
    if len(channels) > 1 and not contains_scans(images):
        return find_patient_folders(images, channels, on_skip=on_skip)
    return find_scans(images, "images")


def check_output_folder(scans: list[Scan], folder: Path, project: Project) -> None:
    """Reject an output folder in which results would replace scans, labels or predictions."""
    from napari_dycon.exports.overwrite_guard import check_folder, check_target, list_scan_files
    from napari_dycon.io import get_scan_file
    from napari_dycon.project.prediction_origin import check_record_path

    check_folder(folder, project)
    scan_paths = list_scan_files(project) | {
        get_scan_file(path).resolve() for scan in scans for path in scan.images
    }
    for scan in scans:
        mask = folder / f"{scan.name}.nii.gz"
        check_target(mask, scan_paths)
        check_record_path(mask)
