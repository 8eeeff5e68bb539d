"""Agreement of a label with a prediction, as it can honestly be shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_dycon.core.types import UNANNOTATED, LabelArray
from napari_dycon.core.volumes import format_ml
from napari_dycon.engine.evaluation.label_comparison import (
    StructureComparison,
    compare_structures,
)
from napari_dycon.project.acceptances import is_accepted
from napari_dycon.project.store import Project

ACCEPTED_TEXT = "accepted"
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
    """

    rows: list[StructureComparison]
    is_partial: bool = False
    is_accepted: bool = False

    @property
    def mean_dice(self) -> float | None:
        """Mean Dice over the structures; ``None`` if there is no meaningful one."""
        if self.is_accepted:
            return None
        dice = [row.dice for row in self.rows if row.dice is not None]
        return float(np.mean(dice)) if dice else None

    def format_label_volume(self, row: StructureComparison) -> str:
        """Format the volume of a structure in the label, marked if it is partial."""
        if row.label_ml is None:
            return "–"
        text = format_ml(row.label_ml)
        return f"{text} (partial)" if self.is_partial else text

    def format_dice(self, row: StructureComparison) -> str:
        """Format the Dice of a structure, or tell that the prediction was accepted."""
        if row.dice is None:
            return "–"
        return ACCEPTED_TEXT if self.is_accepted else f"{row.dice:.2f}"


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
    return Agreement(
        compare_structures(label, prediction, values, spacing_mm),
        is_partial=bool((label == UNANNOTATED).any()),
        is_accepted=(
            run_id is not None
            and prediction is not None
            and is_accepted(project, run_id, case_id, label, prediction)
        ),
    )
