"""One mask a case for other programs: NIfTI, NRRD, or DICOM segmentations beside their series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_dycon.errors import UserError
from napari_dycon.project import formats
from napari_dycon.project.atomic import make_folder
from napari_dycon.project.formats.dicom_seg import write_dicom_seg, write_parametric_map
from napari_dycon.project.formats.dicom_source import reference
from napari_dycon.project.schema import UNANNOTATED
from napari_dycon.project.store import Progress, Project
from napari_dycon.project.terminology import Code
from napari_dycon.project.volume import Volume

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
    progress: Progress | None = None,
) -> list[Exported]:
    """Write ``ID.nii.gz``, ``ID.nrrd`` or ``ID.dcm`` for every case that has something to write.

    Parameters
    ----------
    format_ : "nifti", "nrrd" or "dicom-seg"
    what : "labels", "predictions", or "best": what people drew, and the prediction where nobody did
    run : whose predictions; by default the newest one of each case
    uncertainty : also ``ID_uncertainty``, where there is a prediction
    keep_identity : of DICOM, take over the patient's name and dates from the series
    codes : of DICOM, terms by class value; by default those that the classes' names suggest

    Returns
    -------
    What was written; cases without anything to write are left out.

    Raises
    ------
    UserError
        There is nothing to write, or a case's scan is no DICOM series.
    """
    chosen = [project.case(i).id for i in cases] if cases else [c.id for c in project.cases]
    done: list[Exported] = []
    for number, case in enumerate(chosen, start=1):
        mask, made_of, used = _mask(project, case, what, run)
        if mask is not None:
            like = project.grid(case)
            if format_ == "dicom-seg" and not like.source.files:
                reference(like.source, keep_identity=keep_identity)  # says what is missing
            make_folder(out)
            path = out / f"{case}{ENDINGS[format_]}"
            _refuse_scan(path, project, case)
            if format_ == "dicom-seg":
                write_dicom_seg(
                    mask, like, path, classes=project.classes, codes=codes,
                    keep_identity=keep_identity,
                )  # fmt: skip
            else:
                formats.write_mask(mask, like=like, path=path)
            done.append(Exported(case, path, made_of))
            if uncertainty and used is not None:
                _write_uncertainty(project, case, used, like, out, format_, keep_identity)
        if progress:
            progress(number, len(chosen), case)
    if not done:
        thing = {"labels": "label", "predictions": "prediction"}.get(what, "label or prediction")
        raise UserError(
            f"None of these cases has a {thing} to export. Label or predict some first."
        )
    return done


def _mask(
    project: Project, case: str, what: What, run: str | None
) -> tuple[Mask | None, str, str | None]:
    """Mask of a case, what it is made of, and the run whose prediction is part of it."""
    label: Mask | None = project.read_label(case) if what != "predictions" else None
    if label is not None and (label == UNANNOTATED).all():
        label = None
    if what == "labels":
        return label, "label", None
    runs = project.predictions(case)
    used = run if run in runs else None if run is not None else next(iter(runs), None)
    prediction: Mask | None = project.read_prediction(used, case) if used else None
    if label is None or prediction is None:
        return (label, "label", used) if label is not None else (prediction, "prediction", used)
    missing = label == UNANNOTATED
    if not missing.any():
        return label, "label", used
    return np.where(missing, prediction, label), "label and prediction", used


def _write_uncertainty(
    project: Project,
    case: str,
    run: str,
    like: Volume,
    out: Path,
    format_: str,
    keep_identity: bool,
) -> None:
    found: Any = project.read_prediction(run, case, "uncertainty")
    if found is None:
        return
    path = out / f"{case}_uncertainty{ENDINGS[format_]}"
    if format_ == "dicom-seg":
        write_parametric_map(found, like, path, name="Uncertainty", keep_identity=keep_identity)
    else:
        formats.write_map(found, like=like, path=path)


def _refuse_scan(path: Path, project: Project, case: str) -> None:
    """Never write over a scan."""
    if path.exists() and any(path.samefile(p) for p in project.image_paths(case) if p.exists()):
        raise UserError(f"The mask would replace the scan {path}. Choose another folder.")
