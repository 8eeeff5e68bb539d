"""Statistics of each case for the report, and their CSV table.

A partial label is evaluated only in annotated voxels. Its overlap with the prediction is reported
but excluded from means; surface distances are not reported, because its surface ends where the
annotation ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_dycon import io as image_io
from napari_dycon.core.types import UNANNOTATED, LabelArray
from napari_dycon.engine.data.splits import cases_trained_on
from napari_dycon.engine.evaluation.foreground_margin import mean_foreground_uncertainty
from napari_dycon.engine.evaluation.label_comparison import compare_structures
from napari_dycon.engine.inference.map_artifacts import find_period
from napari_dycon.errors import DyconError
from napari_dycon.exports.csv_table import escape_formula, format_csv
from napari_dycon.io.volume import Volume, grid_difference
from napari_dycon.project.acceptances import is_accepted
from napari_dycon.project.models import Case, ClassInfo, Status
from napari_dycon.project.runs.run import Run
from napari_dycon.project.store import Project

AnnotationExtent = Literal["none", "partial", "complete"]
LabelUse = Literal["training", "validation", "labeled later"]
EXTENT_LABELS: dict[AnnotationExtent, str] = {
    "none": "no label",
    "partial": "partial",
    "complete": "complete",
}
ACCEPTED_NOTE = "The label comes from the accepted prediction; they are not compared."
CSV_COLUMNS = (
    *(
        "case",
        "status",
        "split",
        "label",
        "run",
        "use",
        "class",
        "value",
        "label_ml",
        "prediction_ml",
    ),
    *("dice", "jaccard", "hd95_mm", "asd_mm", "missed", "uncertainty", "notes"),
)


@dataclass(frozen=True)
class StructureStatistics:
    """Statistics of one structure of a case; ``None`` for values that are not available.

    ``missed`` is true if the structure is in only one of label and prediction; distances are then
    the diagonal of the scan.
    """

    info: ClassInfo
    label_ml: float | None = None
    prediction_ml: float | None = None
    dice: float | None = None
    jaccard: float | None = None
    hd95_mm: float | None = None
    asd_mm: float | None = None
    missed: bool = False


@dataclass(frozen=True)
class CaseStatistics:
    """Statistics of one case: annotation extent, use of the label by the run, and structures.

    Attributes
    ----------
    scores : result of ``segmentation_metrics.evaluate_case`` if the label is complete
    notes : files that could not be read
    run : id of the run whose prediction is reported; ``None`` without a prediction
    is_accepted : whether the label comes from the prediction, with which it is not compared then
    """

    case: Case
    use: LabelUse | None
    extent: AnnotationExtent
    score: float | None  # mean uncertainty in the foreground margin
    structures: list[StructureStatistics]
    scores: Mapping[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
    run: str | None = None
    is_accepted: bool = False

    @property
    def has_label(self) -> bool:
        """Whether anything is annotated."""
        return self.extent != "none"

    @property
    def gap(self) -> str:
        """Why label and prediction are not compared; empty if they are."""
        if self.run is None:
            return "no prediction" if self.has_label else "no label, no prediction"
        if not self.has_label:
            return "no label"
        return "not compared: the label comes from this prediction" if self.is_accepted else ""


@dataclass(frozen=True)
class CaseData:
    """Data of a case on one grid: volumes ``(D, H, W)``; the scan may have a channel axis."""

    case: Case
    scan: Volume | None
    label: LabelArray | None
    prediction: LabelArray | None
    uncertainty: npt.NDArray[np.float32] | None
    spacing_mm: tuple[float, float, float]
    notes: list[str]
    run: str | None = None  # of the prediction
    is_accepted: bool = False  # the label comes from the prediction, at least in part
    map_period: tuple[float, ...] = (1.0, 1.0, 1.0)  # see ``map_artifacts.find_period``


def load_case_data(project: Project, case: Case, run: Run | None) -> CaseData:
    """Read the data of a case; files that cannot be read are described in notes without paths."""
    notes: list[str] = []
    scan: Volume | None = None
    if not all(path.exists() for path in project.image_paths(case.id)):
        notes.append("The scan file is missing.")
    else:
        try:
            scan = project.read_image(case.id)
        except DyconError:
            notes.append("The scan cannot be read.")
    label: Volume | None = None
    if case.status != Status.UNLABELED:
        try:
            if (path := project.labels.path(case.id)).exists():
                label = image_io.read_label(path)
        except DyconError:
            notes.append("The label cannot be read.")
    if label is not None and scan is not None and grid_difference(label, scan):
        notes.append("The label is left out: its grid differs from that of the scan.")
        label = None
    grid = scan or label
    prediction: Volume | None = None
    uncertainty: npt.NDArray[np.float32] | None = None
    if run is not None:
        try:
            if (path := project.predictions.path(run.id, case.id)).exists():
                prediction = image_io.read_label(path)
            if prediction is not None:
                uncertainty = project.predictions.read(run.id, case.id, "uncertainty")
        except DyconError:
            notes.append("The prediction cannot be read.")
            prediction = None
    if prediction is not None and grid is not None and grid_difference(prediction, grid):
        notes.append("The prediction is left out: its grid differs from that of the scan.")
        prediction = None
    if prediction is None or (uncertainty is not None and uncertainty.shape != prediction.shape):
        uncertainty = None
    grid = grid or prediction
    spacing_mm = grid.spacing_mm if grid is not None else (1.0, 1.0, 1.0)
    annotated = None if label is None or (label.array == UNANNOTATED).all() else label.array
    return CaseData(
        case,
        scan,
        annotated,
        None if prediction is None else prediction.array,
        uncertainty,
        spacing_mm,
        notes,
        run.id if run is not None and prediction is not None else None,
        _comes_from_prediction(project, case, run, annotated, prediction),
        (1.0, 1.0, 1.0) if uncertainty is None or run is None
        else find_period(project, run.id, spacing_mm),
    )  # fmt: skip


def _comes_from_prediction(
    project: Project,
    case: Case,
    run: Run | None,
    label: LabelArray | None,
    prediction: Volume | None,
) -> bool:
    """Whether a label was accepted from the prediction, with which it is not compared then."""
    if run is None or label is None or prediction is None:
        return False
    if label.shape != prediction.shape:
        return False
    return is_accepted(project, run.id, case.id, label, prediction.array)


def compute_statistics(
    data: CaseData, classes: Sequence[ClassInfo], use: LabelUse | None
) -> CaseStatistics:
    """Compute volumes and metrics of a case; ``use`` is the result of ``classify_label_use``."""
    from napari_dycon.engine.evaluation.segmentation_metrics import (
        evaluate_case,  # imports torch
    )

    label, prediction = data.label, data.prediction
    extent = _classify_extent(label)
    if extent == "none" or prediction is None:
        use = None
    shape = next((mask.shape for mask in (label, prediction) if mask is not None), None)
    if shape is None:
        structures = [StructureStatistics(info) for info in classes]
        return CaseStatistics(data.case, use, extent, None, structures, None, data.notes)
    values = [info.value for info in classes]
    reference_label = label if label is not None else np.full(shape, UNANNOTATED, np.uint8)
    comparisons = compare_structures(reference_label, prediction, values, data.spacing_mm)
    scores = None
    # An accepted prediction agrees with itself, which says nothing.
    if label is not None and prediction is not None and not data.is_accepted:
        scores = evaluate_case(prediction, label, data.spacing_mm, values)
    is_complete = extent == "complete"
    structures = []
    for info, comparison in zip(classes, comparisons, strict=True):
        metrics: Mapping[str, Any] = scores["classes"][str(info.value)] if scores else {}
        if not is_complete and comparison.dice is None:  # absent from the annotated voxels
            metrics = {}
        structures.append(
            StructureStatistics(
                info,
                label_ml=(comparison.label_ml or 0.0) if is_complete else comparison.label_ml,
                prediction_ml=comparison.prediction_ml,
                dice=metrics.get("dice"),
                jaccard=metrics.get("jaccard"),
                hd95_mm=metrics.get("hd95_mm") if is_complete else None,
                asd_mm=metrics.get("asd_mm") if is_complete else None,
                missed=bool(metrics.get("missed")),
            )
        )
    score = None
    if prediction is not None and data.uncertainty is not None:
        score = mean_foreground_uncertainty(prediction, data.uncertainty, data.spacing_mm)
    return CaseStatistics(
        data.case,
        use,
        extent,
        score,
        structures,
        scores if is_complete else None,
        data.notes,
        data.run,
        data.is_accepted,
    )


def classify_label_use(project: Project, run: Run) -> dict[str, LabelUse]:
    """Determine how a run, or a run that initialized it, used the label of each case."""
    trained_ids = cases_trained_on(project, run.id)
    uses: dict[str, LabelUse] = {}
    for case in project.cases:
        if case.id in trained_ids:
            uses[case.id] = "training"
        else:
            uses[case.id] = "validation" if case.split == "validation" else "labeled later"
    return uses


def to_csv(statistics: Sequence[CaseStatistics]) -> str:
    """Format one CSV row per case and structure, with formulas escaped for spreadsheets."""
    rows = []
    for stats in statistics:
        for row in stats.structures:
            numbers = (row.label_ml, row.prediction_ml, row.dice, row.jaccard)
            rows.append(
                [
                    escape_formula(stats.case.id),
                    stats.case.status,
                    stats.case.split,
                    EXTENT_LABELS[stats.extent],
                    stats.run or "",
                    stats.use or "",
                    escape_formula(row.info.name),
                    row.info.value,
                    *(_format_number(number) for number in (*numbers, row.hd95_mm, row.asd_mm)),
                    "yes" if row.missed else "no",
                    _format_number(stats.score),
                    " ".join(stats.notes + ([ACCEPTED_NOTE] if stats.is_accepted else [])),
                ]
            )
    return format_csv(CSV_COLUMNS, rows)


def _format_number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _classify_extent(label: LabelArray | None) -> AnnotationExtent:
    if label is None:
        return "none"
    return "partial" if (label == UNANNOTATED).any() else "complete"
