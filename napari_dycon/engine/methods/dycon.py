"""DyCON (Assefa et al., CVPR 2025): uncertainty-aware consistency and contrastive learning.

``loss = supervised + u · (UnCL + FeCL) + w(t) · MSE``, with UnCL and FeCL over the whole batch and
the MSE over its unlabeled half. The classes that FeCL compares come from the true label in
labeled patches and from the teacher's own prediction in unlabeled ones: the label of an
unlabeled case is never read.
"""

from __future__ import annotations

import torch
from torch import Tensor

from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.losses.contrastive import fecl
from napari_dycon.engine.losses.feature_grid import (
    label_cells,
    mean_entropy_cells,
    pseudo_label_cells_from_log_probabilities,
)
from napari_dycon.engine.losses.segmentation import (
    compare,
    consistency_from_distance,
    log_probabilities,
    supervised_from_log_probabilities,
    uncl_from_comparison,
)
from napari_dycon.engine.methods import Step, teacher_view
from napari_dycon.engine.network import Output, cells
from napari_dycon.engine.training.schedules import (
    adaptive_beta,
    consistency_weight,
    teacher_threshold,
)


class Dycon:
    """The whole step of the paper in the honest setting."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Return ``supervised``, ``uncl``, ``fecl`` and ``consistency``, each weighted."""
        c = self.config
        labeled, unlabeled = step.batch.labeled, step.unlabeled
        count = len(labeled.image)
        image = torch.cat([labeled.image, unlabeled.image])
        with torch.no_grad():  # first, while memory holds nothing of the student yet
            teacher: Output = step.teacher(
                teacher_view(image, step.noise, c.teacher_noise), embed=True
            )
        student: Output = step.student(image, embed=True)
        # Once a step; every part of the loss takes from these.
        log_p, teacher_log_p = (log_probabilities(x.logits) for x in (student, teacher))
        compared = compare(log_p, teacher_log_p)
        beta = adaptive_beta(step.progress, c.beta_max, c.beta_min)
        weight = consistency_weight(step.progress, c.consistency_ramp, c.consistency_weight)
        uncl = uncl_from_comparison(compared, beta, entropy_weight=c.entropy_weight)
        contrast = self._contrast(
            step,
            student.embeddings,
            teacher.embeddings,
            unlabeled_log_p=teacher_log_p[count:],
            entropy=compared.student_entropy,
        )
        consistency = consistency_from_distance(compared.distance[count:], log_p.shape[1])
        u = c.unsupervised_weight
        return {
            "supervised": supervised_from_log_probabilities(log_p[:count], labeled.label),
            "uncl": u * c.uncl_weight * uncl,
            "fecl": u * c.fecl_weight * contrast,
            "consistency": weight * consistency,
        }

    def _contrast(
        self,
        step: Step,
        student: Tensor | None,
        teacher: Tensor | None,
        *,
        unlabeled_log_p: Tensor,
        entropy: Tensor,
    ) -> Tensor:
        """FeCL over all patches: the labeled ones, then those whose classes the teacher tells."""
        c = self.config
        assert student is not None
        assert teacher is not None
        d, h, w = student.shape[2:]
        grid, classes = (d, h, w), unlabeled_log_p.shape[1]
        with torch.no_grad():
            groups = torch.cat(
                [
                    label_cells(step.batch.labeled.label, classes, grid),
                    pseudo_label_cells_from_log_probabilities(
                        unlabeled_log_p, grid, c.teacher_confidence
                    ),
                ]
            )
            doubt = mean_entropy_cells(entropy.detach(), classes, grid)
            if not c.fecl_entropy:
                doubt = torch.zeros_like(doubt)
        z, z_t = cells(student), cells(teacher)
        if c.cross_volume:  # all cells of the batch as if they were one patch
            z, z_t, groups, doubt = (x.flatten(0, 1)[None] for x in (z, z_t, groups, doubt))
        return fecl(
            z,
            groups,
            doubt,
            z_t,
            temperature=c.temperature,
            gamma=c.gamma,
            negative_gamma=c.fecl_negative_gamma,
            teacher_weight=c.fecl_teacher_weight,
            threshold=teacher_threshold(step.progress),
        )
