"""Export of masks, one file per case: NIfTI, NRRD, or DICOM segmentations."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from napari_dycon import io
from napari_dycon.core.atomic import ensure_dir
from napari_dycon.core.cleanup import remove_stale_temporaries
from napari_dycon.core.types import UNANNOTATED, ItemProgressCallback, LabelArray
from napari_dycon.errors import DyconError, UserError
from napari_dycon.exports.options import ExportOptions
from napari_dycon.exports.origins import describe_content, get_algorithm_type, write_origins
from napari_dycon.exports.overwrite_guard import check_folder, check_target, list_scan_files
from napari_dycon.exports.result import ExportedMask, ExportResult, LeftOutCase
from napari_dycon.exports.selection import (
    MaskOrigin,
    PlannedMask,
    Reason,
    classify_label,
    plan_masks,
    read_accepted_predictions,
    summarize_reasons,
)
from napari_dycon.io.dicom.references import read_reference
from napari_dycon.io.dicom.segmentation import Segment, write_dicom_seg, write_parametric_map
from napari_dycon.io.volume import Volume
from napari_dycon.project.acceptances import has_recorded_acceptance
from napari_dycon.project.store import Project

FILE_SUFFIXES = {"nifti": ".nii.gz", "nrrd": ".nrrd", "dicom-seg": ".dcm"}


@dataclass(frozen=True)
class CaseMask:
    """A mask to be written, on the grid of its scan.

    ``drawn_values`` are the values of classes with voxels from the label. ``has_accepted_voxels``
    tells whether some of these come from a prediction.
    """

    plan: PlannedMask
    array: LabelArray
    grid: Volume
    origin: MaskOrigin
    drawn_values: frozenset[int]
    has_accepted_voxels: bool = False


def export_masks(
    project: Project,
    out: Path,
    format_: str,
    options: ExportOptions,
    *,
    on_progress: ItemProgressCallback | None = None,
    on_note: Callable[[str], None] | None = None,
) -> ExportResult:
    """Write ``ID.nii.gz``, ``ID.nrrd`` or ``ID.dcm`` for the selected cases, and ``origins.csv``.

    In NIfTI and NRRD files, voxels without annotation and prediction are 255. In DICOM files they
    belong to no structure.

    Parameters
    ----------
    format_ : "nifti", "nrrd" or "dicom-seg"
    options : see ``selection.plan_masks``; with ``uncertainty``, ``ID_uncertainty`` is written for
        cases with a prediction
    on_progress : called after each case with the number of cases done, their total, and the case id
    on_note : called with messages about masks that are drawn in part

    Returns
    -------
    The exported masks with their origins, and the cases left out with the reasons: those without
    such a mask; unless they are included, cases in progress and unreviewed predictions; for DICOM,
    cases without a foreground voxel.

    Raises
    ------
    UserError
        There is nothing to export, a scan is not a DICOM series, or a file would overwrite a scan,
        a label or a prediction of the project.
    GeometryError
        The grids of a label or prediction and its scan differ.
    """
    check_folder(out, project)
    scans = list_scan_files(project)
    remove_stale_temporaries(out)
    planned = plan_masks(project, options, read_labels=False)
    exported: list[ExportedMask] = []
    left_out: list[LeftOutCase] = []
    try:
        for number, plan in enumerate(planned, start=1):
            mask = _make_mask(project, plan, options)
            if isinstance(mask, CaseMask) and format_ == "dicom-seg":
                mask = _check_dicom(mask, options)
            if isinstance(mask, CaseMask):
                ensure_dir(out)
                exported.append(_write(project, mask, out, format_, options, scans))
                if on_note and (mask.array == UNANNOTATED).any():
                    on_note(_describe_unannotated(plan.case, format_))
            else:
                left_out.append(mask)
            if on_progress:
                on_progress(number, len(planned), plan.case)
    except BaseException:  # also when canceled: no mask is left without its origin
        if exported:
            with contextlib.suppress(DyconError):  # the first error is more informative
                write_origins(out, exported)
        raise
    if not exported:
        raise _make_nothing_error(left_out, options.source)
    if on_note:
        for case in left_out:
            if case.detail:
                on_note(f"{case.case} was left out: {case.detail}")
    write_origins(out, exported)
    return ExportResult(out, [mask.path for mask in exported], exported, left_out)


def _make_mask(
    project: Project, plan: PlannedMask, options: ExportOptions
) -> CaseMask | LeftOutCase:
    """Read the label and prediction of a case, or return why it is left out.

    The voxels decide what the mask is, in case the status in the project differs from them.
    """
    if plan.left_out is not None:
        return _leave_out(plan, plan.left_out)
    grid = project.read_grid(plan.case)
    if plan.origin is MaskOrigin.PREDICTED:
        assert plan.run is not None
        array = _read_prediction(project, plan.case, plan.run, grid)
        return CaseMask(plan, array, grid, MaskOrigin.PREDICTED, frozenset())
    label = io.read_label(project.labels.path(plan.case), reference=grid).array
    origin = classify_label(project, plan.case, label)
    if origin is MaskOrigin.PARTIAL and not options.include_partial:
        return _leave_out(plan, Reason.IN_PROGRESS)
    drawn_values = frozenset(np.unique(label).tolist()) - {0, UNANNOTATED}
    has_accepted_voxels = origin in (MaskOrigin.ACCEPTED, MaskOrigin.CORRECTED) or (
        origin is MaskOrigin.PARTIAL
        and (
            bool(read_accepted_predictions(project, plan.case, label))
            or has_recorded_acceptance(project, plan.case, label)
        )
    )
    if origin is MaskOrigin.PARTIAL and options.uses_predictions and plan.run is not None:
        prediction = _read_prediction(project, plan.case, plan.run, grid)
        label = np.where(label == UNANNOTATED, prediction, label)
        origin = MaskOrigin.COMPLETED
    return CaseMask(plan, label, grid, origin, drawn_values, has_accepted_voxels)


def _read_prediction(project: Project, case: str, run: str, grid: Volume) -> LabelArray:
    prediction: LabelArray | None = project.predictions.read(run, case, reference=grid)
    if prediction is None:
        raise UserError(f"The prediction of {case} was removed during the export. Export again.")
    return prediction


def _leave_out(plan: PlannedMask, reason: Reason) -> LeftOutCase:
    return LeftOutCase(plan.case, reason, reason.option)


def _check_dicom(mask: CaseMask, options: ExportOptions) -> CaseMask | LeftOutCase:
    """Return the mask if it can be a DICOM segmentation, otherwise why the case is left out."""
    if np.isin(mask.array, (0, UNANNOTATED)).all():
        return _leave_out(mask.plan, Reason.EMPTY)  # a DICOM segmentation cannot be empty
    error = _find_reference_error(mask, options)
    return mask if error is None else LeftOutCase(mask.plan.case, Reason.NO_SERIES, detail=error)


def _write(
    project: Project,
    mask: CaseMask,
    out: Path,
    format_: str,
    options: ExportOptions,
    scans: set[Path],
) -> ExportedMask:
    """Write the files of a case."""
    plan, suffix = replace(mask.plan, origin=mask.origin), FILE_SUFFIXES[format_]
    path = out / f"{plan.case}{suffix}"
    check_target(path, scans)
    _write_mask(project, mask, path, format_, options, is_reviewed=plan.is_reviewed)
    if options.uncertainty and plan.run is not None:
        map_path = out / f"{plan.case}_uncertainty{suffix}"
        check_target(map_path, scans)
        _write_uncertainty(project, mask, plan.run, map_path, format_, options)
    run = plan.run if mask.origin.is_predicted else None
    return ExportedMask(plan.case, path, mask.origin, run, plan.status, plan.is_reviewed)


def _describe_unannotated(case: str, format_: str) -> str:
    if format_ == "dicom-seg":
        return f"{case} is drawn in part: what is not drawn counts as background in the DICOM file."
    return (
        f"{case} is drawn in part: unannotated voxels have the value {UNANNOTATED} in the exported "
        "mask."
    )


def _find_reference_error(mask: CaseMask, options: ExportOptions) -> str | None:
    """Return why a DICOM file cannot refer to the series of a scan; ``None`` if it can."""
    if mask.grid.source.files:
        return None
    try:
        read_reference(mask.grid.source, keep_identity=options.keep_identity)
    except UserError as error:
        return str(error)
    return None


def _list_segments(project: Project, mask: CaseMask, options: ExportOptions) -> list[Segment]:
    """List the segments of a DICOM file, one per class of the project."""
    codes = options.codes or {}
    return [
        Segment(
            c.value,
            c.name,
            c.color,
            codes.get(c.value),
            get_algorithm_type(
                mask.origin,
                has_drawn_voxels=c.value in mask.drawn_values,
                has_accepted_voxels=mask.has_accepted_voxels,
            ),
        )
        for c in project.classes
    ]


def _write_mask(
    project: Project,
    mask: CaseMask,
    path: Path,
    format_: str,
    options: ExportOptions,
    *,
    is_reviewed: bool,
) -> None:
    if format_ == "dicom-seg":
        write_dicom_seg(
            mask.array,
            mask.grid,
            path,
            segments=_list_segments(project, mask, options),
            keep_identity=options.keep_identity,
            description=describe_content(mask.origin, is_reviewed=is_reviewed),
            is_reviewed=is_reviewed,
        )
    else:
        io.write_mask(mask.array, reference=mask.grid, path=path)


def _write_uncertainty(
    project: Project, mask: CaseMask, run: str, path: Path, format_: str, options: ExportOptions
) -> None:
    uncertainty = project.predictions.read(run, mask.plan.case, "uncertainty")
    if uncertainty is None:
        return
    if format_ == "dicom-seg":
        write_parametric_map(
            uncertainty, mask.grid, path, name="Uncertainty", keep_identity=options.keep_identity
        )
    else:
        io.write_map(uncertainty, reference=mask.grid, path=path)


def _make_nothing_error(left_out: list[LeftOutCase], source: str) -> UserError:
    """Make the error of an export that wrote no file."""
    errors = [case for case in left_out if case.detail]
    example = f"{errors[0].case}: {errors[0].detail}" if errors else ""
    if options := sorted({case.option for case in left_out if case.option}):
        reasons = summarize_reasons([case.reason for case in left_out])
        what = "the unfinished ones" if errors else "these cases"
        return UserError(
            f"Nothing was exported; left out: {reasons}. Finish {what}, or include them with "
            f"{' '.join(options)}. {example}".strip()
        )
    if errors:
        return UserError(example)
    missing = {"labels": "label", "predictions": "prediction"}.get(source, "label or prediction")
    is_empty = any(case.reason == Reason.EMPTY for case in left_out)
    condition = " with foreground voxels" if is_empty else ""
    return UserError(
        f"None of these cases has a {missing}{condition} to export. Label or predict some first."
    )
