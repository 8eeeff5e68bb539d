"""Commands that create a project, list its cases, and open it in napari."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_dycon.cli.console import make_progress_bar, print_status
from napari_dycon.cli.options import (
    JsonOption,
    ProjectPath,
    ResampleOption,
    open_project,
    parse_case_ids,
    split_names,
)
from napari_dycon.cli.tables import show_cases
from napari_dycon.errors import UserError

if TYPE_CHECKING:
    from napari_dycon.project.importing.case_import import SkippedScan
    from napari_dycon.project.models import Split
    from napari_dycon.project.store import Project


def gui(
    project: Annotated[Path | None, typer.Argument(help="Project folder to open.")] = None,
) -> None:
    """Open napari with the DyCON panel."""
    if project is not None:
        open_project(project)  # errors are reported in the terminal instead of a window
    from napari_dycon.widgets.app import open_window

    open_window(project)


def new(
    project: ProjectPath,
    images: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER", help="Folder of scans: NIfTI, NRRD, MetaImage or DICOM series."
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of labels with the same file names as their scans. Scans without a label "
            "become unlabeled cases.",
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Names of the classes 1, 2, ..., separated by commas."),
    ] = None,
    max_labels: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Maximum number of labels to import, in order of case names."
        ),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Names of the channels in each patient's folder, separated by commas.",
        ),
    ] = None,
    resample: ResampleOption = False,
    as_json: JsonOption = False,
) -> None:
    """Create a project from a folder of scans; scans without a label are unlabeled.

    Scans that cannot be used are left out and listed at the end.

    The layouts of nnU-Net raw, the Medical Segmentation Decathlon, BraTS 2019, ISLES 2022, the left
    atrium challenge and Pancreas-CT are recognized, with their channels and labels.
    """
    from napari_dycon.project.importing.create_project import create_project

    skipped: list[SkippedScan] = []
    with make_progress_bar(as_json) as progress:
        task = progress.add_task("Reading scans", total=None)
        created = create_project(
            project,
            images,
            labels,
            None if classes is None else split_names(classes),
            lambda done, total, name: progress.update(
                task, completed=done, total=total, description=f"Reading {name}"
            ),
            n_labeled=max_labels,
            channels=None if channels is None else split_names(channels),
            resample=resample,
            on_note=print_status,
            on_skip=skipped.append,
        )
    show_cases(created, as_json, [scan.to_dict() for scan in skipped])
    for scan in skipped:
        print_status(scan.message)


def _describe_validation_cases(project: Project) -> str:
    names = [case.id for case in project.cases if case.split == "validation"]
    return f"Validation cases are now: {', '.join(names)}." if names else "No validation cases."


def cases(
    project: ProjectPath,
    validation: Annotated[
        str | None,
        typer.Option(
            metavar="IDS",
            help="Use these cases for validation only, in addition to those chosen before: case "
            "IDs, separated by commas, or @FILE with one per line.",
        ),
    ] = None,
    training: Annotated[
        str | None,
        typer.Option(
            metavar="IDS",
            help="Use these cases for training: case IDs, separated by commas, or @FILE.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the cases of a project, and choose those that are used for validation only.

    Validation cases are never trained on. They measure the progress of training and calibrate the
    uncertainty; one or two labeled cases are enough. --validation adds to those chosen before;
    --training takes cases back.
    """
    opened = open_project(project)
    splits: dict[str, Split] = {}
    choices: tuple[tuple[Split, str | None], ...] = (
        ("train", training),
        ("validation", validation),
    )
    for split, text in choices:
        for case_id in parse_case_ids(text) if text else ():
            if splits.setdefault(opened.get_case(case_id).id, split) != split:
                raise UserError(f"{case_id} cannot be used for both training and validation.")
    if splits:
        from napari_dycon.application.cases.split_choice import change_splits

        for note in change_splits(opened, splits):
            print_status(note.text)
        print_status(_describe_validation_cases(opened))
    show_cases(opened, as_json)
