"""What is measured of each case of a project for its report, and the same as CSV.

Notable: a label of which only a part is annotated counts only there. Its overlap with a prediction
is given; distances between surfaces that end where the annotation ends would mean nothing, and
its overlap does not enter means.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_dycon import io as image_io
from napari_dycon.engine.data.splits import cases_trained_on
from napari_dycon.engine.evaluation.foreground_margin import mean_foreground_uncertainty
from napari_dycon.engine.evaluation.label_comparison import compare_structures
from napari_dycon.errors import DyconError
from napari_dycon.io.volume import Volume, grid_difference
from napari_dycon.project.models import UNANNOTATED, Case, ClassInfo
from napari_dycon.project.runs.run import Run
from napari_dycon.project.store import Project

Mask = npt.NDArray[np.uint8]
Extent = Literal["none", "part", "complete"]
Use = Literal["learned from", "validation", "labeled since"]
EXTENTS: dict[Extent, str] = {"none": "no label", "part": "in part", "complete": "complete"}
HEADER = (
    *("case", "status", "split", "label", "use", "class", "value", "label_ml", "prediction_ml"),
    *("dice", "jaccard", "hd95_mm", "asd_mm", "missed", "uncertainty", "notes"),
)


@dataclass(frozen=True)
class StructureFigures:
    """One structure of a case; volumes in ml, distances in mm, ``None`` where there is nothing.

    ``missed``: in only one of label and prediction, so that distances are the scan's diagonal.
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
class CaseFigures:
    """One case: how far it is annotated, what the run did with it, and its structures.

    ``scores`` is what ``metrics.evaluate_case`` says where the label is complete. ``notes`` say in
    sentences what could not be read.
    """

    case: Case
    use: Use | None
    extent: Extent
    score: float | None  # mean uncertainty around the prediction
    structures: list[StructureFigures]
    scores: Mapping[str, Any] | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class CaseData:
    """What there is of a case, all on one grid: volumes ``(D, H, W)``, the scan with channels."""

    case: Case
    scan: Volume | None
    label: Mask | None
    prediction: Mask | None
    uncertainty: npt.NDArray[np.float32] | None
    spacing_mm: tuple[float, float, float]
    notes: list[str]


def read_case(project: Project, case: Case, run: Run | None) -> CaseData:
    """Read what can be read of a case; what cannot is told in a note without any path."""
    notes: list[str] = []
    scan: Volume | None = None
    if not all(path.exists() for path in project.image_paths(case.id)):
        notes.append("The file of its scan is missing.")
    else:
        try:
            scan = project.read_image(case.id)
        except DyconError:
            notes.append("Its scan cannot be read.")
    label: Volume | None = None
    if case.status != "unlabeled":
        try:
            if (path := project.label_path(case.id)).exists():
                label = image_io.read_label(path)
        except DyconError:
            notes.append("Its label cannot be read.")
    if label is not None and scan is not None and grid_difference(label, scan):
        notes.append("Its label does not lie on the grid of its scan and is left out.")
        label = None
    like = scan or label
    mask: Volume | None = None
    heat: npt.NDArray[np.float32] | None = None
    if run is not None:
        try:
            if (path := project.prediction_path(run.id, case.id)).exists():
                mask = image_io.read_label(path)
            if mask is not None:
                heat = project.read_prediction(run.id, case.id, "uncertainty")
        except DyconError:
            notes.append("Its prediction cannot be read.")
            mask = None
    if mask is not None and like is not None and grid_difference(mask, like):
        notes.append("Its prediction does not lie on the grid of its scan and is left out.")
        mask = None
    if mask is None or (heat is not None and heat.shape != mask.shape):
        heat = None
    like = like or mask
    return CaseData(
        case,
        scan,
        None if label is None or (label.array == UNANNOTATED).all() else label.array,
        None if mask is None else mask.array,
        heat,
        like.spacing_mm if like is not None else (1.0, 1.0, 1.0),
        notes,
    )


def measure(data: CaseData, classes: Sequence[ClassInfo], use: Use | None) -> CaseFigures:
    """Volumes, and how well label and prediction agree; ``use`` as in ``used_labels``."""
    from napari_dycon.engine.evaluation.segmentation_metrics import (
        evaluate_case,  # torch, only when it is needed
    )

    label, prediction = data.label, data.prediction
    extent = _extent(label)
    if extent == "none" or prediction is None:
        use = None
    shape = next((m.shape for m in (label, prediction) if m is not None), None)
    if shape is None:
        structures = [StructureFigures(info) for info in classes]
        return CaseFigures(data.case, use, extent, None, structures, None, data.notes)
    values = [info.value for info in classes]
    drawn = label if label is not None else np.full(shape, UNANNOTATED, np.uint8)
    rows = compare_structures(drawn, prediction, values, data.spacing_mm)
    scores = None
    if label is not None and prediction is not None:
        scores = evaluate_case(prediction, label, data.spacing_mm, values)
    complete = extent == "complete"
    structures = []
    for info, row in zip(classes, rows, strict=True):
        found: Mapping[str, Any] = scores["classes"][str(info.value)] if scores else {}
        if not complete and row.dice is None:  # nothing of it in the annotated part
            found = {}
        structures.append(
            StructureFigures(
                info,
                label_ml=(row.label_ml or 0.0) if complete else row.label_ml,
                prediction_ml=row.prediction_ml,
                dice=found.get("dice"),
                jaccard=found.get("jaccard"),
                hd95_mm=found.get("hd95_mm") if complete else None,
                asd_mm=found.get("asd_mm") if complete else None,
                missed=bool(found.get("missed")),
            )
        )
    score = None
    if prediction is not None and data.uncertainty is not None:
        score = mean_foreground_uncertainty(prediction, data.uncertainty, data.spacing_mm)
    return CaseFigures(
        data.case, use, extent, score, structures, scores if complete else None, data.notes
    )


def used_labels(project: Project, run: Run) -> dict[str, Use]:
    """What a run did with the label of each case; runs that it went on from count as well."""
    learned = cases_trained_on(project, run.id)
    found: dict[str, Use] = {}
    for case in project.cases:
        if case.id in learned:
            found[case.id] = "learned from"
        else:
            found[case.id] = "validation" if case.split == "validation" else "labeled since"
    return found


def as_csv(figures: Sequence[CaseFigures]) -> str:
    """One line a case and structure, numbers in full; safe to open as a spreadsheet."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(HEADER)
    for one in figures:
        for row in one.structures:
            numbers = (row.label_ml, row.prediction_ml, row.dice, row.jaccard)
            writer.writerow(
                [
                    _safe(one.case.id),
                    one.case.status,
                    one.case.split,
                    EXTENTS[one.extent],
                    one.use or "",
                    _safe(row.info.name),
                    row.info.value,
                    *(_number(number) for number in (*numbers, row.hd95_mm, row.asd_mm)),
                    int(row.missed),
                    _number(one.score),
                    " ".join(one.notes),
                ]
            )
    return text.getvalue()


def _safe(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") or text[:1] in "\t\r\n" else text


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _extent(label: Mask | None) -> Extent:
    if label is None:
        return "none"
    return "part" if (label == UNANNOTATED).any() else "complete"
