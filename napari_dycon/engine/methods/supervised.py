"""Supervised baseline: only labeled patches, with the same network and augmentation."""

from __future__ import annotations

from torch import Tensor

from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.losses.supervised import supervised_loss
from napari_dycon.engine.methods.base import StepInputs


class Supervised:
    """Cross-entropy + Dice on annotated voxels."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def compute_loss_terms(self, step: StepInputs) -> dict[str, Tensor]:
        """Return ``{"supervised": ...}``."""
        labeled = step.batch.labeled
        logits = step.student(labeled.image).logits
        return {"supervised": supervised_loss(logits, labeled.label)}
