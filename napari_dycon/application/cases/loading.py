"""Loading of a case with its label and newest prediction."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.cases.case_hotspots import (
    find_case_hotspots,
    find_region_threshold,
)
from napari_dycon.application.intensity_windows import compute_statistics, is_head_ct
from napari_dycon.application.labels.autosave_state import LabelVersion
from napari_dycon.core.colormaps import find_tint_threshold
from napari_dycon.core.types import UNANNOTATED, LabelArray
from napari_dycon.engine.inference.map_artifacts import clean_map, find_period
from napari_dycon.errors import UserError
from napari_dycon.project.prediction_store import PredictionKind
from napari_dycon.project.store import Project

PREDICTION_KINDS: tuple[PredictionKind, ...] = ("mask", "uncertainty", "disagreement")


State = tuple[object, ...]  # of the files of a case


@dataclass(frozen=True)
class LoadedCase:
    """A loaded case, and its label as it was read.

    ``state`` is that of all its files before they were read; ``None`` if it is unknown.
    """

    case: ActiveCase
    saved_label: LabelArray
    label_version: LabelVersion | None
    state: State | None = None


def load_case(project: Project, case_id: str, max_voxels: float = math.inf) -> LoadedCase:
    """Read a case with its label (255 where unannotated) and newest prediction.

    The prediction of a scan of more than ``max_voxels`` is left out: it is pending.
    """
    image = project.read_image(case_id)
    label_version = project.labels.version(
        case_id
    )  # read before the label, which may change meanwhile
    label = project.labels.read(case_id, reference=image)
    if label is None:
        label = np.full(image.shape, UNANNOTATED, dtype=np.uint8)
    label = np.ascontiguousarray(label)
    case = ActiveCase(case_id, image, label, notes=list(image.notes))
    for channel in image.array if image.array.ndim == 4 else image.array[None]:
        case.statistics.append(compute_statistics(channel))
        case.intensity_ranges.append(case.statistics[-1].automatic)
    case.is_head = case.is_ct and is_head_ct(case.get_channel(0), image.spacing_mm)
    case.is_prediction_pending = label.size > max_voxels
    if not case.is_prediction_pending:
        load_prediction(project, case)
    return LoadedCase(case, label.copy(), label_version)


def load_prediction(
    project: Project, case: ActiveCase, preview_of: str | None = None
) -> ActiveCase:
    """Read the newest prediction of a case, if there is one.

    Parameters
    ----------
    preview_of : run whose preview is preferred; see ``PredictionStore.find_newest``
    """
    while (newest := project.predictions.find_newest(case.id, preview_of)) is not None:
        run, stage = newest
        try:
            mask, uncertainty, disagreement = (
                project.predictions.read(run, case.id, kind, reference=case.image, stage=stage)
                for kind in PREDICTION_KINDS
            )
        except UserError as error:  # scan and label are still shown
            case.notes.append(f"The prediction of run {run} is not shown: {error}")
            break
        if mask is None:  # a preliminary one or a preview that was just replaced
            continue
        case.run, case.stage, case.prediction = run, stage, mask
        period = find_period(project, run, case.image.spacing_mm)
        case.uncertainty, case.disagreement = (
            None if values is None else clean_map(values, case.image.array, period)
            for values in (uncertainty, disagreement)
        )
        case.display_thresholds = {
            kind: find_tint_threshold(array)
            for kind in ("uncertainty", "disagreement")
            if (array := getattr(case, kind)) is not None
        }
        case.hotspot_threshold = find_region_threshold(case, 0.0)
        case.hotspots = find_case_hotspots(project, case, case.hotspot_threshold)
        break
    return case
