"""One mask a case for other programs: NIfTI, NRRD, or DICOM segmentations beside their series."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from napari_dycon import io
from napari_dycon.core.atomic import ensure_dir
from napari_dycon.core.cleanup import remove_stale_temporaries
from napari_dycon.core.types import UNANNOTATED, ItemProgressCallback, LabelArray
from napari_dycon.errors import UserError
from napari_dycon.exports.overwrite_guard import check_folder, check_target, list_scan_files
from napari_dycon.io.dicom.references import read_reference
from napari_dycon.io.dicom.segmentation import Segment, write_dicom_seg, write_parametric_map
from napari_dycon.io.dicom.terminology import Code
from napari_dycon.io.volume import Volume
from napari_dycon.project.models import Status
from napari_dycon.project.store import Project

MaskSource = Literal["best", "labels", "predictions"]
FILE_SUFFIXES = {"nifti": ".nii.gz", "nrrd": ".nrrd", "dicom-seg": ".dcm"}


@dataclass(frozen=True)
class ExportedMask:
    """A mask that was written, and what it was made of."""

    case: str
    path: Path
    source: str  # "label", "prediction" or "label and prediction"


def export_masks(
    project: Project,
    out: Path,
    format_: str,
    *,
    source: MaskSource = "best",
    run: str | None = None,
    cases: Sequence[str] | None = None,
    uncertainty: bool = False,
    keep_identity: bool = False,
    codes: Mapping[int, Code] | None = None,
    on_progress: ItemProgressCallback | None = None,
    on_note: Callable[[str], None] | None = None,
) -> list[ExportedMask]:
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
    scans = list_scan_files(project)
    segments = [
        Segment(c.value, c.name, c.color, (codes or {}).get(c.value)) for c in project.classes
    ]
    remove_stale_temporaries(out)
    case_ids = [project.get_case(i).id for i in cases] if cases else [c.id for c in project.cases]
    exported: list[ExportedMask] = []
    left_out: list[str] = []
    for number, case in enumerate(case_ids, start=1):
        label, prediction_run = _find_sources(project, case, source, run)
        mask: LabelArray | None = None
        if label is not None or prediction_run is not None:
            grid = project.read_grid(case)
            mask, mask_source = _combine_masks(project, case, label, prediction_run, grid)
            if format_ == "dicom-seg" and np.isin(mask, (0, UNANNOTATED)).all():
                mask = None  # DICOM cannot hold a segmentation of nothing
        if mask is not None:
            if format_ == "dicom-seg" and not grid.source.files:
                try:
                    read_reference(grid.source, keep_identity=keep_identity)  # says what is missing
                except UserError as error:
                    if cases:
                        raise UserError(f"{case}: {error}") from None
                    left_out.append(f"{case} was left out: {error}")
                    continue
            ensure_dir(out)
            path = out / f"{case}{FILE_SUFFIXES[format_]}"
            check_target(path, scans)
            if format_ == "dicom-seg":
                write_dicom_seg(mask, grid, path, segments=segments, keep_identity=keep_identity)
            else:
                io.write_mask(mask, reference=grid, path=path)
            exported.append(ExportedMask(case, path, mask_source))
            if on_note and format_ != "dicom-seg" and (mask == UNANNOTATED).any():
                on_note(
                    f"{case} is annotated in part: what nobody annotated is {UNANNOTATED} there."
                )
            if uncertainty and prediction_run is not None:
                path = out / f"{case}_uncertainty{FILE_SUFFIXES[format_]}"
                check_target(path, scans)
                _write_uncertainty(
                    project, case, prediction_run, grid, path, format_, keep_identity
                )
        if on_progress:
            on_progress(number, len(case_ids), case)
    if left_out and not exported:
        raise UserError(left_out[0].replace(" was left out", "", 1))
    if on_note:
        for text in left_out:
            on_note(text)
    if not exported:
        missing = {"labels": "label", "predictions": "prediction"}.get(
            source, "label or prediction"
        )
        condition = " with a voxel of a structure" if format_ == "dicom-seg" else ""
        raise UserError(
            f"None of these cases has a {missing}{condition} to export. Label or predict some first."
        )
    return exported


def _find_sources(
    project: Project, case: str, source: MaskSource, run: str | None
) -> tuple[Path | None, str | None]:
    """Label of a case, and the run with its prediction, as far as they are wanted and there."""
    label_path = project.labels.path(case)
    has_label = project.get_case(case).status != Status.UNLABELED and label_path.exists()
    label = label_path if has_label and source != "predictions" else None
    if source == "labels":
        return label, None
    runs = project.predictions.list_run_ids(case)
    return label, run if run in runs else None if run is not None else next(iter(runs), None)


def _combine_masks(
    project: Project, case: str, label: Path | None, run: str | None, grid: Volume
) -> tuple[LabelArray, str]:
    """Mask of a case, and what it is made of."""
    label_mask = None if label is None else io.read_label(label, reference=grid).array
    if run is None:
        assert label_mask is not None
        return label_mask, "label"
    prediction = io.read_label(project.predictions.path(run, case), reference=grid).array
    if label_mask is None:
        return prediction, "prediction"
    is_unannotated = label_mask == UNANNOTATED
    if not is_unannotated.any():
        return label_mask, "label"
    return np.where(is_unannotated, prediction, label_mask), "label and prediction"


def _write_uncertainty(
    project: Project,
    case: str,
    run: str,
    grid: Volume,
    path: Path,
    format_: str,
    keep_identity: bool,
) -> None:
    uncertainty: Any = project.predictions.read(run, case, "uncertainty")
    if uncertainty is None:
        return
    if format_ == "dicom-seg":
        write_parametric_map(
            uncertainty, grid, path, name="Uncertainty", keep_identity=keep_identity
        )
    else:
        io.write_map(uncertainty, reference=grid, path=path)
