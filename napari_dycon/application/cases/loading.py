"""Loading of a case with its label and newest prediction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.cases.display_maps import get_cell_mm, make_display_map
from napari_dycon.application.hotspots import find_hotspots
from napari_dycon.application.intensity_windows import compute_statistics, is_head_ct
from napari_dycon.application.labels.autosave_state import AutosaveState
from napari_dycon.core.types import UNANNOTATED
from napari_dycon.errors import DyconError, UserError
from napari_dycon.project.prediction_store import PredictionKind
from napari_dycon.project.store import Project

# Tinting everything would hide the scan: at most this fraction of a map's voxels is tinted,
# those above the value in ``display_thresholds``.
MAX_TINTED_FRACTION = 0.1
PREDICTION_KINDS: tuple[PredictionKind, ...] = ("mask", "uncertainty", "disagreement")


@dataclass(frozen=True)
class LoadedCase:
    """A loaded case and the autosave state of its label."""

    case: ActiveCase
    autosave: AutosaveState


def load_case(project: Project, case_id: str) -> LoadedCase:
    """Read a case with its label (255 where unannotated) and newest prediction."""
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
    return LoadedCase(load_prediction(project, case), AutosaveState(label.copy(), label_version))


def load_prediction(project: Project, case: ActiveCase) -> ActiveCase:
    """Read the newest prediction of a case, if there is one."""
    for run in project.predictions.list_run_ids(case.id)[:1]:
        reference = case.image
        try:
            mask, uncertainty, disagreement = (
                project.predictions.read(run, case.id, k, reference=reference)
                for k in PREDICTION_KINDS
            )
        except UserError as error:  # scan and label are still shown
            case.notes.append(f"The prediction of run {run} is not shown: {error}")
            break
        case.run, case.prediction, case.uncertainty, case.disagreement = (
            run,
            mask,
            uncertainty,
            disagreement,
        )
        case.display_maps = _make_display_maps(project, case, run)
        case.display_thresholds = {
            kind: float(
                np.quantile(array[::2, ::2, ::2].astype(np.float32), 1.0 - MAX_TINTED_FRACTION)
            )
            for kind, array in case.display_maps.items()
        }
        case.hotspots = (
            []
            if case.uncertainty is None
            else find_hotspots(case.uncertainty, case.image.spacing_mm)
        )
    return case


def _make_display_maps(
    project: Project, case: ActiveCase, run: str
) -> dict[str, npt.NDArray[np.float16]]:
    spacing = case.image.spacing_mm
    try:
        config = project.runs.get(run).read_config()
    except DyconError:  # the prediction of a run that was removed
        config = {}
    cells = [c / s for c, s in zip(get_cell_mm(config, spacing), spacing, strict=True)]
    return {
        kind: make_display_map(values, case.prediction, case.get_channel(0), cells)
        for kind in ("uncertainty", "disagreement")
        if (values := getattr(case, kind)) is not None
    }
