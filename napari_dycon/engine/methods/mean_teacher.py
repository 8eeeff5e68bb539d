"""Mean Teacher (Tarvainen & Valpola, NeurIPS 2017): the student follows its own average."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.losses.segmentation import (
    consistency_from_log_probabilities,
    log_probabilities,
    supervised_from_log_probabilities,
)
from napari_dycon.engine.methods import Step, teacher_view
from napari_dycon.engine.training.schedules import consistency_weight


class MeanTeacher:
    """Supervised loss + w(t) · MSE between student and teacher on unlabeled patches."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Return ``supervised`` and ``consistency``."""
        c = self.config
        labeled, unlabeled = step.batch.labeled, step.unlabeled
        count = len(labeled.image)
        with torch.no_grad():  # first, while memory holds nothing of the student yet
            view = teacher_view(unlabeled.image, step.noise, c.teacher_noise)
            teacher_logits = step.teacher(view).logits
        logits = step.student(torch.cat([labeled.image, unlabeled.image])).logits
        weight = consistency_weight(step.progress, c.consistency_ramp, c.consistency_weight)
        log_p = log_probabilities(logits)
        consistency = consistency_from_log_probabilities(
            log_p[count:], log_probabilities(teacher_logits)
        )
        return {
            "supervised": supervised_from_log_probabilities(log_p[:count], labeled.label),
            "consistency": weight * consistency,
        }
