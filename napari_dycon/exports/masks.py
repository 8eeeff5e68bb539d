"""Export of masks, one file per case: NIfTI, NRRD, or DICOM segmentations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_dycon import io
from napari_dycon.core.atomic import ensure_dir
from napari_dycon.core.cleanup import remove_stale_temporaries
from napari_dycon.core.types import UNANNOTATED, ItemProgressCallback, LabelArray
from napari_dycon.errors import UserError
from napari_dycon.exports.options import ExportOptions
from napari_dycon.exports.overwrite_guard import check_folder, check_target, list_scan_files
from napari_dycon.io.dicom.references import read_reference
from napari_dycon.io.dicom.segmentation import Segment, write_dicom_seg, write_parametric_map
from napari_dycon.io.volume import Volume
from napari_dycon.project.models import Status
from napari_dycon.project.store import Project

FILE_SUFFIXES = {"nifti": ".nii.gz", "nrrd": ".nrrd", "dicom-seg": ".dcm"}


@dataclass(frozen=True)
class ExportedMask:
    """An exported mask and its source."""

    case: str
    path: Path
    source: str  # "label", "prediction" or "label and prediction"


@dataclass(frozen=True)
class CaseMask:
    """A mask to be written, on the grid of its scan.

    Attributes
    ----------
    source : "label", "prediction" or "label and prediction"
    run : id of the run that predicted the case; ``None`` without a prediction
    """

    case: str
    array: LabelArray
    grid: Volume
    source: str
    run: str | None


def export_masks(
    project: Project,
    out: Path,
    format_: str,
    options: ExportOptions,
    *,
    on_progress: ItemProgressCallback | None = None,
    on_note: Callable[[str], None] | None = None,
) -> list[ExportedMask]:
    """Write ``ID.nii.gz``, ``ID.nrrd`` or ``ID.dcm`` for every case with a label or prediction.

    In NIfTI and NRRD files, voxels without annotation and prediction are 255.

    Parameters
    ----------
    format_ : "nifti", "nrrd" or "dicom-seg"
    options : with ``uncertainty``, ``ID_uncertainty`` is written for cases with a prediction
    on_progress : called after each case with the number of cases done, their total, and the case id
    on_note : called with messages about masks that are partially annotated or were left out

    Returns
    -------
    The exported masks. Cases without a label or prediction are left out; for DICOM, so are cases
    without a foreground voxel.

    Raises
    ------
    UserError
        There is nothing to export, a scan is not a DICOM series, or a file would overwrite a scan,
        a label or a prediction of the project.
    GeometryError
        The grids of a label or prediction and its scan differ.
    """
    run = project.runs.get(options.run).id if options.run else None
    check_folder(out, project)
    scans = list_scan_files(project)
    remove_stale_temporaries(out)
    chosen = options.cases
    case_ids = [project.get_case(i).id for i in chosen] if chosen else [c.id for c in project.cases]
    exported: list[ExportedMask] = []
    skipped: list[str] = []
    for number, case in enumerate(case_ids, start=1):
        mask = _make_mask(project, case, options.source, run)
        if mask is not None and format_ == "dicom-seg":
            if np.isin(mask.array, (0, UNANNOTATED)).all():
                mask = None  # a DICOM segmentation cannot be empty
            elif error := _find_reference_error(mask, options):
                if chosen:
                    raise UserError(f"{case}: {error}") from None
                skipped.append(f"{case} was left out: {error}")
                continue
        if mask is not None:
            ensure_dir(out)
            path = out / f"{case}{FILE_SUFFIXES[format_]}"
            check_target(path, scans)
            _write_mask(project, mask, path, format_, options)
            exported.append(ExportedMask(case, path, mask.source))
            if on_note and format_ != "dicom-seg" and (mask.array == UNANNOTATED).any():
                on_note(
                    f"{case} is partially annotated: unannotated voxels have the value "
                    f"{UNANNOTATED} in the exported mask."
                )
            if options.uncertainty and mask.run is not None:
                path = out / f"{case}_uncertainty{FILE_SUFFIXES[format_]}"
                check_target(path, scans)
                _write_uncertainty(project, mask, mask.run, path, format_, options)
        if on_progress:
            on_progress(number, len(case_ids), case)
    if not exported:
        raise _make_nothing_error(skipped, format_, options.source)
    if on_note:
        for text in skipped:
            on_note(text)
    return exported


def _make_mask(project: Project, case: str, source: str, run: str | None) -> CaseMask | None:
    """Read the requested label and prediction of a case; ``None`` if it has neither."""
    label_path = project.labels.path(case)
    has_label = project.get_case(case).status != Status.UNLABELED and label_path.exists()
    label = label_path if has_label and source != "predictions" else None
    prediction_run = None if source == "labels" else _choose_run(project, case, run)
    if label is None and prediction_run is None:
        return None
    grid = project.read_grid(case)
    array, mask_source = _combine_masks(project, case, label, prediction_run, grid)
    return CaseMask(case, array, grid, mask_source, prediction_run)


def _choose_run(project: Project, case: str, run: str | None) -> str | None:
    """Choose the run whose prediction is exported: the requested run or the newest."""
    runs = project.predictions.list_run_ids(case)
    if run is not None:
        return run if run in runs else None
    return next(iter(runs), None)


def _combine_masks(
    project: Project, case: str, label: Path | None, run: str | None, grid: Volume
) -> tuple[LabelArray, str]:
    """Combine the label and prediction of a case; returns the mask and its source."""
    label_mask = None if label is None else io.read_label(label, reference=grid).array
    if run is None:
        assert label_mask is not None
        return label_mask, "label"
    prediction = project.predictions.read(run, case, reference=grid)
    if label_mask is None:
        return prediction, "prediction"
    is_unannotated = label_mask == UNANNOTATED
    if not is_unannotated.any():
        return label_mask, "label"
    return np.where(is_unannotated, prediction, label_mask), "label and prediction"


def _find_reference_error(mask: CaseMask, options: ExportOptions) -> str | None:
    """Return why a DICOM file cannot refer to the series of a scan; ``None`` if it can."""
    if mask.grid.source.files:
        return None
    try:
        read_reference(mask.grid.source, keep_identity=options.keep_identity)
    except UserError as error:
        return str(error)
    return None


def _list_segments(project: Project, options: ExportOptions) -> list[Segment]:
    """List the segments of a DICOM file, one per class of the project."""
    codes = options.codes or {}
    return [Segment(c.value, c.name, c.color, codes.get(c.value)) for c in project.classes]


def _write_mask(
    project: Project, mask: CaseMask, path: Path, format_: str, options: ExportOptions
) -> None:
    if format_ == "dicom-seg":
        write_dicom_seg(
            mask.array,
            mask.grid,
            path,
            segments=_list_segments(project, options),
            keep_identity=options.keep_identity,
        )
    else:
        io.write_mask(mask.array, reference=mask.grid, path=path)


def _write_uncertainty(
    project: Project, mask: CaseMask, run: str, path: Path, format_: str, options: ExportOptions
) -> None:
    uncertainty = project.predictions.read(run, mask.case, "uncertainty")
    if uncertainty is None:
        return
    if format_ == "dicom-seg":
        write_parametric_map(
            uncertainty, mask.grid, path, name="Uncertainty", keep_identity=options.keep_identity
        )
    else:
        io.write_map(uncertainty, reference=mask.grid, path=path)


def _make_nothing_error(skipped: list[str], format_: str, source: str) -> UserError:
    """Make the error of an export that wrote no file."""
    if skipped:
        return UserError(skipped[0].replace(" was left out", "", 1))
    missing = {"labels": "label", "predictions": "prediction"}.get(source, "label or prediction")
    condition = " with foreground voxels" if format_ == "dicom-seg" else ""
    return UserError(
        f"None of these cases has a {missing}{condition} to export. Label or predict some first."
    )
