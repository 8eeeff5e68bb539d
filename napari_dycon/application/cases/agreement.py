"""Agreement of a label with a prediction, as it can honestly be shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_dycon.annotation.coverage import AnnotatedSlices, count_annotated_slices
from napari_dycon.core.types import UNANNOTATED, LabelArray
from napari_dycon.core.volumes import format_ml
from napari_dycon.engine.evaluation.label_comparison import (
    StructureComparison,
    compare_structures,
)
from napari_dycon.project.acceptances import is_accepted
from napari_dycon.project.store import Project

ACCEPTED_TEXT, PARTIAL_TEXT = "accepted", "partial"
ACCEPTED_TIP = (
    "The label was made from this prediction, so that a Dice of the two would say nothing about "
    "the network"
)
PARTIAL_TIP = "Only a part of the scan is annotated; this is the volume of what is painted"


@dataclass(frozen=True)
class Agreement:
    """Label and prediction structure by structure.

    Attributes
    ----------
    is_partial : some voxels are not annotated, so that volumes of the label are incomplete
    is_accepted : the label was made from the prediction, so that there is no meaningful Dice
    annotated : slices with annotation of a partial label
    """

    rows: list[StructureComparison]
    is_partial: bool = False
    is_accepted: bool = False
    annotated: AnnotatedSlices | None = None

    @property
    def mean_dice(self) -> float | None:
        """Mean Dice over the structures; ``None`` if it is not comparable with other cases."""
        return None if self.is_accepted or self.is_partial else self.mean_annotated_dice

    @property
    def mean_annotated_dice(self) -> float | None:
        """Mean Dice over the structures in annotated voxels, however few these are."""
        dice = [row.dice for row in self.rows if row.dice is not None]
        return float(np.mean(dice)) if dice else None

    def format_label_volume(self, row: StructureComparison) -> str:
        """Format the volume of a structure in the label, marked if it is partial."""
        if row.label_ml is None:
            return "–"
        text = format_ml(row.label_ml)
        return f"{text} (partial)" if self.is_partial else text

    def format_dice(self, row: StructureComparison) -> str:
        """Format the Dice of a structure, or tell why it would not be comparable."""
        if row.dice is None:
            return "–"
        if self.is_accepted:
            return ACCEPTED_TEXT
        return PARTIAL_TEXT if self.is_partial else f"{row.dice:.2f}"

    def explain_dice(self, row: StructureComparison) -> str:
        """Explain what is shown instead of a Dice; empty if it is shown."""
        if row.dice is None:
            return ""
        if self.is_accepted:
            return ACCEPTED_TIP
        return describe_partial(self, row.dice) if self.is_partial else ""


def describe_partial(agreement: Agreement, dice: float | None = None) -> str:
    """Explain why the Dice of a partial label is not shown among those of complete ones.

    Parameters
    ----------
    dice : in annotated voxels; by default the mean over the structures
    """
    dice = agreement.mean_annotated_dice if dice is None else dice
    where = f"in {agreement.annotated}" if agreement.annotated else "in a part of the scan"
    number = "" if dice is None else f" Dice in the annotated voxels: {dice:.2f}"
    return f"Partial label: annotated {where}.{number}"


def measure_agreement(
    project: Project,
    case_id: str,
    run_id: str | None,
    label: LabelArray,
    prediction: LabelArray | None,
    spacing_mm: Sequence[float],
) -> Agreement:
    """Compare the label of a case with a run's prediction; ``None`` if there is no prediction."""
    values = [info.value for info in project.classes]
    is_partial = bool((label == UNANNOTATED).any())
    return Agreement(
        compare_structures(label, prediction, values, spacing_mm),
        is_partial=is_partial,
        annotated=count_annotated_slices(label) if is_partial else None,
        is_accepted=(
            run_id is not None
            and prediction is not None
            and is_accepted(project, run_id, case_id, label, prediction)
        ),
    )
