"""One mask a case for other programs: NIfTI, NRRD, or DICOM segmentations beside their series."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_dycon import io
from napari_dycon.core.atomic import ensure_dir
from napari_dycon.core.cleanup import remove_stale_temporaries
from napari_dycon.errors import UserError
from napari_dycon.exports.overwrite_guard import check_folder, check_target, scan_files
from napari_dycon.io.dicom.references import read_reference
from napari_dycon.io.dicom.segmentation import write_dicom_seg, write_parametric_map
from napari_dycon.io.dicom.terminology import Code
from napari_dycon.io.volume import Volume
from napari_dycon.project.importing.case_import import OnProgress
from napari_dycon.project.models import UNANNOTATED
from napari_dycon.project.store import Project

Mask = npt.NDArray[np.uint8]
What = Literal["best", "labels", "predictions"]
ENDINGS = {"nifti": ".nii.gz", "nrrd": ".nrrd", "dicom-seg": ".dcm"}


@dataclass(frozen=True)
class Exported:
    """A mask that was written, and what it was made of."""

    case: str
    path: Path
    made_of: str  # "label", "prediction" or "label and prediction"


def export_masks(
    project: Project,
    out: Path,
    format_: str,
    *,
    what: What = "best",
    run: str | None = None,
    cases: Sequence[str] | None = None,
    uncertainty: bool = False,
    keep_identity: bool = False,
    codes: Mapping[int, Code] | None = None,
    progress: OnProgress | None = None,
    note: Callable[[str], None] | None = None,
) -> list[Exported]:
    """Write ``ID.nii.gz``, ``ID.nrrd`` or ``ID.dcm`` for every case that has something to write.

    Parameters
    ----------
    format_ : "nifti", "nrrd" or "dicom-seg"
    what : "labels", "predictions", or "best": what people drew, and the prediction where nobody
        did. NIfTI and NRRD hold 255 where nobody annotated and nothing is predicted
    run : whose predictions; by default the newest one of each case
    uncertainty : also ``ID_uncertainty``, where there is a prediction
    keep_identity : of DICOM, take over the patient's name and dates from the series
    codes : of DICOM, terms by class value; by default those that the classes' names suggest
    note : is told which masks are those of labels in part

    Returns
    -------
    What was written; cases without anything to write are left out, and for DICOM those without a
    voxel of any structure.

    Raises
    ------
    UserError
        There is nothing to write, a case's scan is no DICOM series, or a file would take the place
        of a scan, or of a label or prediction of the project.
    GeometryError
        A label or prediction does not lie on the grid of its scan.
    """
    check_folder(out, project)
    scans = scan_files(project)
    remove_stale_temporaries(out)
    chosen = [project.get_case(i).id for i in cases] if cases else [c.id for c in project.cases]
    done: list[Exported] = []
    refused: list[str] = []
    for number, case in enumerate(chosen, start=1):
        label, used = _there(project, case, what, run)
        mask: Mask | None = None
        if label is not None or used is not None:
            like = project.read_grid(case)
            mask, made_of = _mask(project, case, label, used, like)
            if format_ == "dicom-seg" and np.isin(mask, (0, UNANNOTATED)).all():
                mask = None  # DICOM cannot hold a segmentation of nothing
        if mask is not None:
            if format_ == "dicom-seg" and not like.source.files:
                try:
                    read_reference(like.source, keep_identity=keep_identity)  # says what is missing
                except UserError as error:
                    if cases:
                        raise UserError(f"{case}: {error}") from None
                    refused.append(f"{case} was left out: {error}")
                    continue
            ensure_dir(out)
            path = out / f"{case}{ENDINGS[format_]}"
            check_target(path, scans)
            if format_ == "dicom-seg":
                write_dicom_seg(
                    mask, like, path, classes=project.classes, codes=codes,
                    keep_identity=keep_identity,
                )  # fmt: skip
            else:
                io.write_mask(mask, reference=like, path=path)
            done.append(Exported(case, path, made_of))
            if note and format_ != "dicom-seg" and (mask == UNANNOTATED).any():
                note(f"{case} is annotated in part: what nobody annotated is {UNANNOTATED} there.")
            if uncertainty and used is not None:
                path = out / f"{case}_uncertainty{ENDINGS[format_]}"
                check_target(path, scans)
                _write_uncertainty(project, case, used, like, path, format_, keep_identity)
        if progress:
            progress(number, len(chosen), case)
    if refused and not done:
        raise UserError(refused[0].replace(" was left out", "", 1))
    if note:
        for text in refused:
            note(text)
    if not done:
        thing = {"labels": "label", "predictions": "prediction"}.get(what, "label or prediction")
        within = " with a voxel of a structure" if format_ == "dicom-seg" else ""
        raise UserError(
            f"None of these cases has a {thing}{within} to export. Label or predict some first."
        )
    return done


def _there(
    project: Project, case: str, what: What, run: str | None
) -> tuple[Path | None, str | None]:
    """Label of a case, and the run with its prediction, as far as they are wanted and there."""
    file = project.label_path(case)
    drawn = project.get_case(case).status != "unlabeled" and file.exists()
    label = file if drawn and what != "predictions" else None
    if what == "labels":
        return label, None
    runs = project.predictions(case)
    return label, run if run in runs else None if run is not None else next(iter(runs), None)


def _mask(
    project: Project, case: str, label: Path | None, run: str | None, like: Volume
) -> tuple[Mask, str]:
    """Mask of a case, and what it is made of."""
    drawn = None if label is None else io.read_label(label, reference=like).array
    if run is None:
        assert drawn is not None
        return drawn, "label"
    prediction = io.read_label(project.prediction_path(run, case), reference=like).array
    if drawn is None:
        return prediction, "prediction"
    missing = drawn == UNANNOTATED
    if not missing.any():
        return drawn, "label"
    return np.where(missing, prediction, drawn), "label and prediction"


def _write_uncertainty(
    project: Project,
    case: str,
    run: str,
    like: Volume,
    path: Path,
    format_: str,
    keep_identity: bool,
) -> None:
    found: Any = project.read_prediction(run, case, "uncertainty")
    if found is None:
        return
    if format_ == "dicom-seg":
        write_parametric_map(found, like, path, name="Uncertainty", keep_identity=keep_identity)
    else:
        io.write_map(found, reference=like, path=path)
