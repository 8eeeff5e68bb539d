"""Registry of export formats, and the function that exports a project in one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from napari_dycon.core.types import ItemProgressCallback
from napari_dycon.core.wording import format_count
from napari_dycon.errors import UserError
from napari_dycon.exports.masks import export_masks
from napari_dycon.exports.nnunet import describe_dataset, find_free_dataset_id, write_nnunet
from napari_dycon.exports.options import ExportOptions
from napari_dycon.exports.report.write import CSV_NAME, write_report
from napari_dycon.exports.result import ExportResult
from napari_dycon.io.dicom.terminology import Code, search
from napari_dycon.project.store import Project

OnNote = Callable[[str], None]


# Writes a project in one format.
WriteExport = Callable[
    [Project, Path, ExportOptions, ItemProgressCallback | None, OnNote | None], ExportResult
]


MASK_OPTIONS = frozenset(
    {"source", "run", "cases", "include_partial", "include_unreviewed", "uncertainty"}
)
DICOM_OPTIONS = MASK_OPTIONS | {"keep_identity", "codes"}
OPTION_NAMES = {"codes": "dicom-code"}  # on the command line; otherwise with dashes


@dataclass(frozen=True)
class Exporter:
    """An export format: its description, its writer, and the options it uses."""

    description: str
    write: WriteExport
    options: frozenset[str]


def export(
    project: Project,
    format_: str,
    out: Path | str,
    options: ExportOptions | None = None,
    *,
    on_progress: ItemProgressCallback | None = None,
    on_note: OnNote | None = None,
) -> ExportResult:
    """Export a project.

    Parameters
    ----------
    format_ : one of ``EXPORTERS``
    out : output folder; created if missing
    on_progress : called after each case with the number of cases done, their total, and the case id
    on_note : called with messages for the user

    Returns
    -------
    The files or the folder written, and for masks their origins and the cases left out.

    Raises
    ------
    UserError
        The format is unknown or does not use one of the options, or ``out`` is a file.
    """
    options = options or ExportOptions()
    out = Path(out).absolute()
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; expected an output folder.")
    exporter = EXPORTERS.get(format_)
    if exporter is None:
        raise UserError(f"Unknown format '{format_}'; expected one of: {', '.join(EXPORTERS)}.")
    _reject_unused_options(format_, exporter, options)
    return exporter.write(project, out, options, on_progress, on_note)


def _reject_unused_options(format_: str, exporter: Exporter, options: ExportOptions) -> None:
    """Reject options that the format does not use."""
    if options.cases is not None and "cases" not in exporter.options:
        raise UserError(
            f"The format {format_} exports the whole project and cannot be limited to cases. Omit "
            "the list of cases, or choose another format."
        )
    unused = [
        f"--{OPTION_NAMES.get(field.name, field.name.replace('_', '-'))}"
        for field in fields(options)
        if field.name not in exporter.options and getattr(options, field.name) != field.default
    ]
    if unused:
        raise UserError(
            f"The format {format_} does not use {' and '.join(unused)}. Omit it, or choose another "
            "format."
        )


def _export_masks(
    project: Project,
    out: Path,
    options: ExportOptions,
    on_progress: ItemProgressCallback | None,
    on_note: OnNote | None,
    *,
    format_: str,
) -> ExportResult:
    return export_masks(project, out, format_, options, on_progress=on_progress, on_note=on_note)


def _export_nnunet(
    project: Project,
    out: Path,
    options: ExportOptions,
    on_progress: ItemProgressCallback | None,
    _on_note: OnNote | None,
) -> ExportResult:
    number = options.dataset_id or find_free_dataset_id(out)
    folder = write_nnunet(project, out, dataset_id=number, on_progress=on_progress)
    return ExportResult(out, [folder], details=describe_dataset(folder, number))


def _export_bundle(
    project: Project,
    out: Path,
    options: ExportOptions,
    _on_progress: ItemProgressCallback | None,
    _on_note: OnNote | None,
) -> ExportResult:
    from napari_dycon.exports.monai_bundle import export_monai_bundle  # imports torch

    run = project.runs.get(options.run)
    if not run.has_weights:
        raise UserError(f"Run {run.id} has no weights yet. Train it first.")
    folder = export_monai_bundle(
        run.weights_path,
        out,
        name=project.name,
        classes=project.classes,
        channels=project.channels,
    )
    details = [
        f"The bundle has the networks of run {run.id}. It uses no labeled scans as atlases, so "
        "that predictions of napari-dycon can differ."
    ]
    return ExportResult(out, [folder], details=details)


def _export_report(
    project: Project,
    out: Path,
    options: ExportOptions,
    on_progress: ItemProgressCallback | None,
    _on_note: OnNote | None,
) -> ExportResult:
    page = write_report(project, out, run=options.run, cases=options.cases, on_progress=on_progress)
    count = len(project.cases if options.cases is None else options.cases)
    cases = format_count(count, "case")
    details = [f"{page.name} describes {cases}; {CSV_NAME} has the numbers."]
    return ExportResult(out, [page, page.with_name(CSV_NAME)], details=details)


EXPORTERS: dict[str, Exporter] = {
    "nifti": Exporter(
        "one mask per case (NIfTI)", partial(_export_masks, format_="nifti"), MASK_OPTIONS
    ),
    "nrrd": Exporter(
        "one mask per case (NRRD)", partial(_export_masks, format_="nrrd"), MASK_OPTIONS
    ),
    "dicom-seg": Exporter(
        "one DICOM segmentation (SEG) per case",
        partial(_export_masks, format_="dicom-seg"),
        DICOM_OPTIONS,
    ),
    "nnunet": Exporter("nnU-Net raw dataset", _export_nnunet, frozenset({"dataset_id"})),
    "monai-bundle": Exporter("trained model as a MONAI bundle", _export_bundle, frozenset({"run"})),
    "report": Exporter(
        "report (HTML) and table of results (CSV)", _export_report, frozenset({"run", "cases"})
    ),
}
FORMATS = {name: exporter.description for name, exporter in EXPORTERS.items()}


def parse_codes(project: Project, pairs: Sequence[str]) -> dict[int, Code]:
    """Parse ``NAME=TERM`` pairs to coded terms by class value; the best match of a term is used."""
    values_by_name = {info.name.casefold(): info.value for info in project.classes}
    codes = {}
    for pair in pairs:
        name, separator, words = pair.partition("=")
        if not separator or name.strip().casefold() not in values_by_name:
            raise UserError(
                f"'{pair}' is not a class name and a term; expected NAME=TERM with NAME one of: "
                f"{', '.join(info.name for info in project.classes)}."
            )
        matches = search(words)
        if not matches:
            raise UserError(f"No coded term found for '{words}'. Try a more general term.")
        codes[values_by_name[name.strip().casefold()]] = matches[0]
    return codes
