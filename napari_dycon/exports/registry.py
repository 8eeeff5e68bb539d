"""Every format that a project can be exported to, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from napari_dycon.core.types import ItemProgressCallback
from napari_dycon.errors import UserError
from napari_dycon.exports.masks import export_masks
from napari_dycon.exports.nnunet import write_nnunet
from napari_dycon.exports.options import ExportOptions
from napari_dycon.exports.report.write import write_report
from napari_dycon.io.dicom.terminology import Code, search
from napari_dycon.project.store import Project

OnNote = Callable[[str], None]


# Writes a project in one format; returns the files or the folder that were written.
WriteExport = Callable[
    [Project, Path, ExportOptions, ItemProgressCallback | None, OnNote | None], list[Path]
]


@dataclass(frozen=True)
class Exporter:
    """A format: what it is, how it is written, and whether single cases can be chosen."""

    description: str
    write: WriteExport
    selects_cases: bool = True


def export(
    project: Project,
    format_: str,
    out: Path | str,
    options: ExportOptions | None = None,
    *,
    on_progress: ItemProgressCallback | None = None,
    on_note: OnNote | None = None,
) -> list[Path]:
    """Export a project.

    Parameters
    ----------
    format_ : one of ``EXPORTERS``
    out : folder; made if it is missing
    on_progress : called after each case with cases done, cases in all, and the case's id
    on_note : called with sentences that the user should read

    Returns
    -------
    The files or the folder that were written.
    """
    options = options or ExportOptions()
    out = Path(out).absolute()
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; expected a folder to write to.")
    exporter = EXPORTERS.get(format_)
    if exporter is None:
        raise UserError(f"There is no format '{format_}'; expected one of: {', '.join(EXPORTERS)}.")
    if options.cases is not None and not exporter.selects_cases:
        raise UserError(
            f"The format {format_} is of the whole project; single cases cannot be chosen. Leave "
            "the list of cases out, or choose another format."
        )
    return exporter.write(project, out, options, on_progress, on_note)


def _export_masks(
    project: Project,
    out: Path,
    options: ExportOptions,
    on_progress: ItemProgressCallback | None,
    on_note: OnNote | None,
    *,
    format_: str,
) -> list[Path]:
    exported = export_masks(
        project, out, format_, options, on_progress=on_progress, on_note=on_note
    )
    return [mask.path for mask in exported]


def _export_nnunet(
    project: Project,
    out: Path,
    _options: ExportOptions,
    on_progress: ItemProgressCallback | None,
    _on_note: OnNote | None,
) -> list[Path]:
    return [write_nnunet(project, out, on_progress=on_progress)]


def _export_bundle(
    project: Project,
    out: Path,
    options: ExportOptions,
    _on_progress: ItemProgressCallback | None,
    _on_note: OnNote | None,
) -> list[Path]:
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
    return [folder]


def _export_report(
    project: Project,
    out: Path,
    options: ExportOptions,
    on_progress: ItemProgressCallback | None,
    _on_note: OnNote | None,
) -> list[Path]:
    return [
        write_report(project, out, run=options.run, cases=options.cases, on_progress=on_progress)
    ]


EXPORTERS: dict[str, Exporter] = {
    "nifti": Exporter("one mask per case (NIfTI)", partial(_export_masks, format_="nifti")),
    "nrrd": Exporter("one mask per case (NRRD)", partial(_export_masks, format_="nrrd")),
    "dicom-seg": Exporter(
        "one DICOM segmentation per case",
        partial(_export_masks, format_="dicom-seg"),
    ),
    "nnunet": Exporter("dataset in nnU-Net's raw layout", _export_nnunet, selects_cases=False),
    "monai-bundle": Exporter(
        "trained model as a MONAI bundle", _export_bundle, selects_cases=False
    ),
    "report": Exporter("report (HTML) with a table of results (CSV)", _export_report),
}
FORMATS = {name: exporter.description for name, exporter in EXPORTERS.items()}


def parse_codes(project: Project, pairs: Sequence[str]) -> dict[int, Code]:
    """Find coded terms for classes from ``NAME=TERM``: the first that is found for the term."""
    values_by_name = {info.name.casefold(): info.value for info in project.classes}
    codes = {}
    for pair in pairs:
        name, separator, words = pair.partition("=")
        if not separator or name.strip().casefold() not in values_by_name:
            raise UserError(
                f"'{pair}' names no structure and term; expected NAME=TERM with one of: "
                f"{', '.join(info.name for info in project.classes)}."
            )
        matches = search(words)
        if not matches:
            raise UserError(f"There is no coded term for '{words}'. Try a more general word.")
        codes[values_by_name[name.strip().casefold()]] = matches[0]
    return codes
