"""Mean Teacher (Tarvainen & Valpola, NeurIPS 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_dycon.engine.losses.consistency import consistency_from_log_probabilities
from napari_dycon.engine.losses.probability import compute_log_probabilities
from napari_dycon.engine.losses.supervised import supervised_from_log_probabilities
from napari_dycon.engine.methods.base import StepInputs, TeacherStudentMethod


class MeanTeacher(TeacherStudentMethod):
    """Supervised loss + w(t) · MSE between student and teacher on unlabeled patches."""

    def compute_loss_terms(self, step: StepInputs) -> dict[str, Tensor]:
        """Return ``supervised`` and ``consistency``."""
        labeled, unlabeled = step.batch.labeled, step.unlabeled
        n_labeled = len(labeled.image)
        teacher_logits = self.run_teacher(unlabeled.image, step).logits
        logits = step.student(torch.cat([labeled.image, unlabeled.image])).logits
        log_p = compute_log_probabilities(logits)
        consistency = consistency_from_log_probabilities(
            log_p[n_labeled:], compute_log_probabilities(teacher_logits)
        )
        return {
            "supervised": supervised_from_log_probabilities(log_p[:n_labeled], labeled.label),
            "consistency": self.compute_consistency_weight(step) * consistency,
        }
