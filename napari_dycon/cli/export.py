"""The command ``export``: masks, nnU-Net datasets, MONAI bundles and reports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_dycon.cli.console import (
    make_progress_bar,
    plain_cell,
    print_json,
    print_status,
    print_table,
)
from napari_dycon.cli.options import (
    CasesOption,
    JsonOption,
    ProjectPath,
    open_project,
    parse_case_ids,
)
from napari_dycon.cli.runs import describe_choice
from napari_dycon.core.text import escape_control_characters

if TYPE_CHECKING:
    from rich.table import Table

    from napari_dycon.exports.result import ExportResult
    from napari_dycon.project.store import Project


SourceOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="labels, predictions, or auto: labels and, with --include-unreviewed, predictions in "
        "unannotated voxels.",
    ),
]
IncludePartialOption = Annotated[
    bool, typer.Option("--include-partial", help="Also export masks of cases in progress.")
]
IncludeUnreviewedOption = Annotated[
    bool,
    typer.Option(
        "--include-unreviewed",
        help="Also export predictions that were not accepted, alone and in unannotated voxels.",
    ),
]
DicomCodeOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=TERM",
        help="Coded term of a class in DICOM files: words of the term, or its SNOMED CT code, such "
        "as lesion=neoplasm or lesion=108369006; repeatable.",
    ),
]
DatasetIdOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=999,
        metavar="N",
        help="Number of an nnU-Net dataset. Default: the first one that is free in the folder.",
    ),
]


def export(
    project: ProjectPath,
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help="nifti, nrrd, dicom-seg, nnunet, monai-bundle or report.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Output folder.")],
    source: SourceOption = "auto",
    run: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Run to export; default: newest. For masks and reports, the newest run that "
            "predicted the case.",
        ),
    ] = None,
    cases: CasesOption = None,
    include_partial: IncludePartialOption = False,
    include_unreviewed: IncludeUnreviewedOption = False,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Also write uncertainty maps.")
    ] = False,
    dicom_code: DicomCodeOption = None,
    keep_identity: Annotated[
        bool,
        typer.Option(
            "--keep-identity", help="Keep the patient's name, ID and dates in DICOM files."
        ),
    ] = False,
    dataset_id: DatasetIdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export masks, an nnU-Net dataset, a trained model or a report.

    By default, only finished masks are exported: cases in progress and predictions that were not
    accepted are left out and listed. The file origins.csv lists what each mask is.
    """
    from napari_dycon.exports.options import ExportOptions
    from napari_dycon.exports.registry import export as export_project
    from napari_dycon.exports.registry import parse_codes

    opened = open_project(project)
    options = ExportOptions(
        source=source,
        run=run,
        cases=parse_case_ids(cases) if cases else None,
        include_partial=include_partial,
        include_unreviewed=include_unreviewed,
        uncertainty=uncertainty,
        keep_identity=keep_identity,
        codes=parse_codes(opened, dicom_code) if dicom_code else None,
        dataset_id=dataset_id,
    )
    if format_ == "monai-bundle":
        _describe_network(opened, run)
    with make_progress_bar(as_json) as progress:
        task = progress.add_task("Exporting", total=None)
        result = export_project(
            opened,
            format_,
            out,
            options,
            on_note=print_status,
            on_progress=lambda done, total, name: progress.update(
                task, completed=done, total=total, description=f"Exported {name}"
            ),
        )
    if as_json:
        print_json(_to_json(format_, result))
    else:
        _show_result(result, out)


def _describe_network(project: Project, run: str | None) -> None:
    """Say which network is exported, whether it has hardly learned, and how to choose another."""
    if run is None and not project.runs.list():
        return
    chosen = project.runs.get(run)
    if not chosen.has_weights:
        return
    for line in describe_choice(project, chosen, is_default=run is None):
        print_status(line)


def _show_result(result: ExportResult, out: Path) -> None:
    """Print the masks and the cases left out, or the file or folder written."""
    if result.masks:
        print_table(_build_table(result))
        print_status(result.describe())
        return
    for path in result.written:
        shown = out if path == result.out else out / path.relative_to(result.out)
        typer.echo(escape_control_characters(f"Wrote {shown}"))
    for line in result.details:
        print_status(line)


def _to_json(format_: str, result: ExportResult) -> dict[str, Any]:
    return {
        "format": format_,
        "written": [str(path) for path in result.written],
        "details": list(result.details),
        "cases": [
            {
                "case": mask.case,
                "file": str(mask.path),
                "origin": mask.origin,
                "run": mask.run,
                "status": mask.status,
                "reviewed": mask.is_reviewed,
            }
            for mask in result.masks
        ],
        "left_out": [{"case": case.case, "reason": case.reason} for case in result.left_out],
    }


def _build_table(result: ExportResult) -> Table:
    """Build the table of the masks written and of the cases left out."""
    from rich.table import Table

    table = Table()
    for column in ("case", "mask", "file"):
        table.add_column(column, no_wrap=True)
    for mask in result.masks:
        origin = f"{mask.origin} ({mask.run})" if mask.run else mask.origin
        table.add_row(*map(plain_cell, (mask.case, origin, mask.path.name)))
    for case in result.left_out:
        option = f"; see {case.option}" if case.option else ""
        table.add_row(*map(plain_cell, (case.case, f"left out: {case.reason}{option}", "")))
    return table
