"""Every way out of a project, by the name of its format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import get_args

from napari_dycon.core.types import ItemProgressCallback
from napari_dycon.errors import UserError
from napari_dycon.exports.masks import FILE_SUFFIXES, MaskSource, export_masks
from napari_dycon.exports.nnunet import write_nnunet
from napari_dycon.exports.report.write import write_report
from napari_dycon.io.dicom.terminology import Code, search
from napari_dycon.project.store import Project

FORMATS = {
    "nifti": "a mask a case, NIfTI",
    "nrrd": "a mask a case, NRRD",
    "dicom-seg": "a mask a case, DICOM segmentation beside its series",
    "nnunet": "the data set in nnU-Net's raw layout",
    "monai-bundle": "the trained network as a MONAI bundle",
    "report": "a report to read (HTML) and its figures (CSV)",
}


def export(
    project: Project,
    format_: str,
    out: Path | str,
    *,
    source: str = "best",
    run: str | None = None,
    cases: Sequence[str] | None = None,
    uncertainty: bool = False,
    keep_identity: bool = False,
    codes: Mapping[int, Code] | None = None,
    on_progress: ItemProgressCallback | None = None,
    on_note: Callable[[str], None] | None = None,
) -> list[Path]:
    """Export a project's work; see ``FORMATS``, and ``export_masks`` for the parameters.

    Returns
    -------
    The files or the folder that were written.
    """
    out = Path(out).absolute()
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; expected a folder to write to.")
    if format_ in FILE_SUFFIXES:
        if source not in get_args(MaskSource):
            raise UserError(f"'{source}' cannot be exported; expected best, labels or predictions.")
        exported = export_masks(
            project,
            out,
            format_,
            source=source,  # type: ignore[arg-type]
            run=project.runs.get(run).id if run else None,
            cases=cases,
            uncertainty=uncertainty,
            keep_identity=keep_identity,
            codes=codes,
            on_progress=on_progress,
            on_note=on_note,
        )
        return [item.path for item in exported]
    if cases is not None and format_ in ("nnunet", "monai-bundle"):
        raise UserError(
            f"The format {format_} is of the whole project; single cases cannot be chosen. Leave "
            "the list of cases out, or choose another format."
        )
    if format_ == "nnunet":
        return [write_nnunet(project, out, on_progress=on_progress)]
    if format_ == "report":
        return [write_report(project, out, run=run, cases=cases, on_progress=on_progress)]
    if format_ == "monai-bundle":
        from napari_dycon.exports.monai_bundle import export_monai_bundle  # imports torch

        chosen = project.runs.get(run)
        if not chosen.has_weights:
            raise UserError(f"Run {chosen.id} has no weights yet. Train it first.")
        return [
            export_monai_bundle(
                chosen.weights_path,
                out,
                name=project.name,
                classes=project.classes,
                channels=project.channels,
            )
        ]
    raise UserError(f"There is no format '{format_}'; expected one of: {', '.join(FORMATS)}.")


def parse_codes(project: Project, pairs: Sequence[str]) -> dict[int, Code]:
    """Coded terms for classes from ``NAME=WORDS``, the first that is found for the words."""
    values_by_name = {info.name.casefold(): info.value for info in project.classes}
    codes = {}
    for pair in pairs:
        name, separator, words = pair.partition("=")
        if not separator or name.strip().casefold() not in values_by_name:
            raise UserError(
                f"'{pair}' names no structure and term; expected NAME=WORDS with one of: "
                f"{', '.join(info.name for info in project.classes)}."
            )
        matches = search(words)
        if not matches:
            raise UserError(f"There is no coded term for '{words}'. Try a more general word.")
        codes[values_by_name[name.strip().casefold()]] = matches[0]
    return codes
