"""The command ``export``: masks, nnU-Net datasets, MONAI bundles and reports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_dycon.cli.console import make_progress_bar, print_json, print_status
from napari_dycon.cli.options import (
    CasesOption,
    JsonOption,
    ProjectPath,
    open_project,
    parse_case_ids,
)
from napari_dycon.core.text import escape_control_characters


def export(
    project: ProjectPath,
    format_: Annotated[
        str,
        typer.Option("--format", help="nifti, nrrd, dicom-seg, nnunet, monai-bundle or report."),
    ],
    out: Annotated[Path, typer.Option(help="Output folder.")],
    source: Annotated[
        str,
        typer.Option(
            help="labels, predictions, or auto (labels, with predictions in unannotated voxels)."
        ),
    ] = "auto",
    run: Annotated[
        str | None,
        typer.Option(help="Run whose predictions or weights to use. Default: newest."),
    ] = None,
    cases: CasesOption = None,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Also write uncertainty maps.")
    ] = False,
    dicom_code: Annotated[
        list[str] | None,
        typer.Option(help="Coded term of a class in DICOM files, as NAME=TERM; repeatable."),
    ] = None,
    keep_identity: Annotated[
        bool,
        typer.Option(
            "--keep-identity", help="Keep the patient's name, ID and dates in DICOM files."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Export masks, an nnU-Net dataset, a trained model or a report."""
    from napari_dycon.exports.options import ExportOptions
    from napari_dycon.exports.registry import export as export_project
    from napari_dycon.exports.registry import parse_codes

    opened = open_project(project)
    options = ExportOptions(
        source=source,
        run=run,
        cases=parse_case_ids(cases) if cases else None,
        uncertainty=uncertainty,
        keep_identity=keep_identity,
        codes=parse_codes(opened, dicom_code) if dicom_code else None,
    )
    with make_progress_bar(as_json) as progress:
        task = progress.add_task("Exporting", total=None)
        written = export_project(
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
        print_json({"format": format_, "written": [str(path) for path in written]})
    else:
        typer.echo(escape_control_characters(f"{len(written)} file(s) or folder(s) in {out}"))
