"""The honest baseline: the labelled half alone, with the same network and augmentation."""

from __future__ import annotations

from torch import Tensor

from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.losses import supervised_loss
from napari_dycon.engine.methods import Step


class Supervised:
    """Cross-entropy + Dice on annotated voxels."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Return ``{"supervised": ...}``."""
        labelled = step.batch.labelled
        logits = step.student(labelled.image).logits
        return {"supervised": supervised_loss(logits, labelled.label)}
