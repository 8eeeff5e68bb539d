"""The active case: scan, label and newest prediction as arrays."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from napari_dycon.application.hotspots import Hotspot
from napari_dycon.application.intensity_windows import IntensityStatistics
from napari_dycon.core.types import Array, LabelArray
from napari_dycon.io.volume import Volume
from napari_dycon.project.prediction_store import PredictionStage

MAX_CT_MINIMUM_HU = -400.0


@dataclasses.dataclass
class ActiveCase:
    """The case shown; canonical arrays ``(D, H, W)``.

    ``label`` is edited in place (255 = not annotated). ``prediction`` and the maps are those of
    ``run``, or ``None`` while there are none. ``stage`` tells whether the prediction is complete,
    preliminary, or a preview of a run that was still training. The maps are without artifacts of
    networks, see ``map_artifacts``.
    """

    id: str
    image: Volume
    label: LabelArray
    run: str | None = None
    prediction: LabelArray | None = None
    uncertainty: npt.NDArray[np.float32] | None = None
    disagreement: npt.NDArray[np.float32] | None = None
    intensity_ranges: list[tuple[float, float]] = dataclasses.field(
        default_factory=list
    )  # (low, high) of each channel
    statistics: list[IntensityStatistics] = dataclasses.field(default_factory=list)  # by channel
    is_head: bool = False  # a CT of the head
    # Values above which the maps are tinted; see ``colormaps.MAX_TINTED_FRACTION``.
    display_thresholds: dict[str, float] = dataclasses.field(default_factory=dict)
    hotspots: list[Hotspot] = dataclasses.field(default_factory=list)  # largest mass first
    hotspot_threshold: float = 0.0  # least uncertainty of their voxels
    notes: list[str] = dataclasses.field(default_factory=list)  # shown to the user
    stage: PredictionStage = "complete"
    name: str = ""  # that the user chose instead of the id
    is_prediction_pending: bool = False  # it is still being read

    @property
    def display_name(self) -> str:
        """Name shown to the user."""
        return self.name or self.id

    @property
    def is_preliminary(self) -> bool:
        """Whether the prediction is that of one network alone, which the complete one replaces."""
        return self.stage == "preliminary"

    @property
    def is_preview(self) -> bool:
        """Whether the prediction is of a network that was still being trained."""
        return self.stage == "preview"

    def get_channel(self, index: int) -> Array:
        """Return one channel of the scan, ``(D, H, W)``."""
        array: Array = self.image.array
        return array if array.ndim == 3 else np.asarray(array[index])

    def take_prediction(self, other: ActiveCase) -> None:
        """Take the prediction, with everything that belongs to it, of the same case."""
        self.run, self.stage = other.run, other.stage
        self.prediction = other.prediction
        self.uncertainty, self.disagreement = other.uncertainty, other.disagreement
        self.hotspots, self.display_thresholds = other.hotspots, other.display_thresholds
        self.hotspot_threshold = other.hotspot_threshold
        self.is_prediction_pending = False

    @property
    def is_ct(self) -> bool:
        """Whether intensities look like Hounsfield units: they include air."""
        return self.intensity_ranges[0][0] < MAX_CT_MINIMUM_HU
