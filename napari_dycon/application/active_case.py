"""The case a person looks at: its scan, label and newest prediction, as arrays."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from napari_dycon.application.hotspots import Hotspot, find_hotspots
from napari_dycon.errors import UserError
from napari_dycon.io.volume import Volume
from napari_dycon.project.models import UNANNOTATED
from napari_dycon.project.prediction_store import PredictionKind
from napari_dycon.project.store import Project

# What is unsure everywhere would hide the scan: at most this share of a map's voxels is tinted, and
# ``display_thresholds`` holds the value that this takes.
MAX_TINTED_FRACTION = 0.1
PREDICTION_KINDS: tuple[PredictionKind, ...] = ("mask", "uncertainty", "disagreement")
MAX_CT_MINIMUM_HU = -400.0


@dataclasses.dataclass
class ActiveCase:
    """The case being looked at; canonical arrays ``(D, H, W)``.

    ``label`` is edited in place (255 = not annotated); ``saved_label`` is the copy of it that was
    read or saved last, and ``remote_label`` what the disk holds where somebody else drew too.
    ``prediction`` and the maps are those of ``run``, or ``None`` while there are none.
    """

    id: str
    image: Volume
    label: npt.NDArray[np.uint8]
    saved_label: npt.NDArray[np.uint8]
    run: str | None = None
    prediction: npt.NDArray[np.uint8] | None = None
    uncertainty: npt.NDArray[np.float32] | None = None
    disagreement: npt.NDArray[np.float32] | None = None
    intensity_ranges: list[tuple[float, float]] = dataclasses.field(
        default_factory=list
    )  # a channel's range
    display_thresholds: dict[str, float] = dataclasses.field(default_factory=dict)  # see MOST_SHOWN
    hotspots: list[Hotspot] = dataclasses.field(default_factory=list)  # uncertain, heaviest first
    remote_label: npt.NDArray[np.uint8] | None = None
    label_version: tuple[int, int, int] | None = (
        None  # state of the label's file when last read or written
    )
    notes: list[str] = dataclasses.field(default_factory=list)  # for the person who opened it
    save_count: int = 0  # begun so far, so that a slow older one never overwrites a newer one

    @property
    def is_ct(self) -> bool:
        """Whether gray values look like Hounsfield units: they reach down to air."""
        return self.intensity_ranges[0][0] < MAX_CT_MINIMUM_HU

    @property
    def has_unsaved_changes(self) -> bool:
        """Whether something was drawn, undone or erased since the last save."""
        return not np.array_equal(self.label, self.saved_label)


def load_case(project: Project, case_id: str) -> ActiveCase:
    """Read a case with its label (all 255 where nothing was drawn) and newest prediction."""
    image = project.read_image(case_id)
    label_version = project.labels.version(case_id)
    label = project.labels.read(case_id, reference=image)
    if label is None:
        label = np.full(image.shape, UNANNOTATED, dtype=np.uint8)
    label = np.ascontiguousarray(label)
    case = ActiveCase(
        case_id,
        image,
        label,
        saved_label=label.copy(),
        label_version=label_version,
        notes=list(image.notes),
    )
    for channel in image.array if image.array.ndim == 4 else image.array[None]:
        low, high = (float(v) for v in np.quantile(channel[::2, ::2, ::2], (0.005, 0.995)))
        case.intensity_ranges.append((low, max(high, low + 1e-6)))
    return load_prediction(project, case)


def load_prediction(project: Project, case: ActiveCase) -> ActiveCase:
    """Fill a view with the newest prediction of its case, as far as there is one."""
    for run in project.predictions.list_run_ids(case.id)[:1]:
        reference = case.image
        try:
            mask, uncertainty, disagreement = (
                project.predictions.read(run, case.id, k, reference=reference)
                for k in PREDICTION_KINDS
            )
        except UserError as error:  # the scan and what was drawn are shown all the same
            case.notes.append(f"What run {run} predicted is not shown: {error}")
            break
        case.run, case.prediction, case.uncertainty, case.disagreement = (
            run,
            mask,
            uncertainty,
            disagreement,
        )
        case.display_thresholds = {
            kind: float(np.quantile(array[::2, ::2, ::2], 1.0 - MAX_TINTED_FRACTION))
            for kind in ("uncertainty", "disagreement")
            if (array := getattr(case, kind)) is not None
        }
        case.hotspots = (
            []
            if case.uncertainty is None
            else find_hotspots(case.uncertainty, case.image.spacing_mm)
        )
    return case
