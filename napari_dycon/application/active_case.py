"""The case a person looks at: its scan, label and newest prediction, as arrays."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from napari_dycon.application.hotspots import HotSpot, find_hot_spots
from napari_dycon.errors import UserError
from napari_dycon.io.volume import Volume
from napari_dycon.project.models import UNANNOTATED
from napari_dycon.project.store import PredictionKind, Project

# What is unsure everywhere would hide the scan: at most this share of a map's voxels is tinted, and
# ``floors`` holds the value that this takes.
MOST_SHOWN = 0.1
KINDS: tuple[PredictionKind, ...] = ("mask", "uncertainty", "disagreement")
LEAST_GRAY_OF_CT = -400.0


@dataclasses.dataclass
class CaseView:
    """The case being looked at; canonical arrays ``(D, H, W)``.

    ``label`` is edited in place (255 = not annotated); ``saved`` is the copy of it that was read or
    saved last, and ``others`` what the disk holds where somebody else drew too.
    ``prediction`` and the maps are those of ``run``, or ``None`` while there are none.
    """

    id: str
    image: Volume
    label: npt.NDArray[np.uint8]
    saved: npt.NDArray[np.uint8]
    run: str | None = None
    prediction: npt.NDArray[np.uint8] | None = None
    uncertainty: npt.NDArray[np.float32] | None = None
    disagreement: npt.NDArray[np.float32] | None = None
    gray: list[tuple[float, float]] = dataclasses.field(default_factory=list)  # a channel's range
    floors: dict[str, float] = dataclasses.field(default_factory=dict)  # see MOST_SHOWN
    spots: list[HotSpot] = dataclasses.field(default_factory=list)  # uncertain, heaviest first
    others: npt.NDArray[np.uint8] | None = None
    stamp: tuple[int, int, int] | None = None  # state of the label's file when last read or written
    notes: list[str] = dataclasses.field(default_factory=list)  # for the person who opened it
    saves: int = 0  # begun so far, so that a slow older one never overwrites a newer one

    @property
    def is_ct(self) -> bool:
        """Whether gray values look like Hounsfield units: they reach down to air."""
        return self.gray[0][0] < LEAST_GRAY_OF_CT

    @property
    def unsaved(self) -> bool:
        """Whether something was drawn, undone or erased since the last save."""
        return not np.array_equal(self.label, self.saved)


def load_case(project: Project, case_id: str) -> CaseView:
    """Read a case with its label (all 255 where nothing was drawn) and newest prediction."""
    image = project.read_image(case_id)
    stamp = project.label_version(case_id)
    label = project.read_label(case_id, reference=image)
    if label is None:
        label = np.full(image.shape, UNANNOTATED, dtype=np.uint8)
    label = np.ascontiguousarray(label)
    view = CaseView(case_id, image, label, saved=label.copy(), stamp=stamp, notes=list(image.notes))
    for channel in image.array if image.array.ndim == 4 else image.array[None]:
        low, high = (float(v) for v in np.quantile(channel[::2, ::2, ::2], (0.005, 0.995)))
        view.gray.append((low, max(high, low + 1e-6)))
    return load_prediction(project, view)


def load_prediction(project: Project, view: CaseView) -> CaseView:
    """Fill a view with the newest prediction of its case, as far as there is one."""
    for run in project.predictions(view.id)[:1]:
        like = view.image
        try:
            mask, heat, apart = (
                project.read_prediction(run, view.id, k, reference=like) for k in KINDS
            )
        except UserError as error:  # the scan and what was drawn are shown all the same
            view.notes.append(f"What run {run} predicted is not shown: {error}")
            break
        view.run, view.prediction, view.uncertainty, view.disagreement = run, mask, heat, apart
        view.floors = {
            role: float(np.quantile(array[::2, ::2, ::2], 1.0 - MOST_SHOWN))
            for role in ("uncertainty", "disagreement")
            if (array := getattr(view, role)) is not None
        }
        view.spots = (
            []
            if view.uncertainty is None
            else find_hot_spots(view.uncertainty, view.image.spacing_mm)
        )
    return view
