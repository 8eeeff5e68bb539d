"""Mean Teacher (Tarvainen & Valpola, NeurIPS 2017): the student follows its own average."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.losses.segmentation import (
    compute_log_probabilities,
    consistency_from_log_probabilities,
    supervised_from_log_probabilities,
)
from napari_dycon.engine.methods import StepInputs, add_input_noise
from napari_dycon.engine.training.schedules import sigmoid_rampup


class MeanTeacher:
    """Supervised loss + w(t) · MSE between student and teacher on unlabeled patches."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def compute_loss_terms(self, step: StepInputs) -> dict[str, Tensor]:
        """Return ``supervised`` and ``consistency``."""
        c = self.config
        labeled, unlabeled = step.batch.labeled, step.unlabeled
        n_labeled = len(labeled.image)
        with torch.no_grad():  # first, while memory holds nothing of the student yet
            noisy_image = add_input_noise(
                unlabeled.image, step.noise_generator, c.semi_supervised.teacher_noise_std
            )
            teacher_logits = step.teacher(noisy_image).logits
        logits = step.student(torch.cat([labeled.image, unlabeled.image])).logits
        weight = sigmoid_rampup(
            step.progress,
            c.semi_supervised.consistency_rampup,
            c.semi_supervised.consistency_weight,
        )
        log_p = compute_log_probabilities(logits)
        consistency = consistency_from_log_probabilities(
            log_p[n_labeled:], compute_log_probabilities(teacher_logits)
        )
        return {
            "supervised": supervised_from_log_probabilities(log_p[:n_labeled], labeled.label),
            "consistency": weight * consistency,
        }
