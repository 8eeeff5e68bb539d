"""DyCON (Assefa et al., CVPR 2025): uncertainty-aware consistency and contrastive learning.

``loss = supervised + u · (UnCL + FeCL) + w(t) · MSE``, with UnCL and FeCL over the whole batch and
the MSE over its unlabelled half. The classes that FeCL compares come from the true label in
labelled patches and from the teacher's own prediction in unlabelled ones: the label of an
unlabelled case is never read.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_dycon.engine import contrastive, losses
from napari_dycon.engine.cells import entropy_cells, label_cells, pseudo_label_cells
from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.methods import Step, teacher_view
from napari_dycon.engine.network import Output, cells
from napari_dycon.engine.schedules import adaptive_beta, consistency_weight


class Dycon:
    """The whole step of the paper in the honest setting."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Return ``supervised``, ``uncl``, ``fecl`` and ``consistency``, each weighted."""
        c = self.config
        labelled, unlabelled = step.batch.labelled, step.unlabelled
        count = len(labelled.image)
        image = torch.cat([labelled.image, unlabelled.image])
        student: Output = step.student(image, embed=True)
        with torch.no_grad():
            teacher: Output = step.teacher(
                teacher_view(image, step.noise, c.teacher_noise), embed=True
            )
        beta = adaptive_beta(step.progress, c.beta_max, c.beta_min)
        weight = consistency_weight(step.progress, c.consistency_ramp, c.consistency_weight)
        consistency = losses.uncl(
            student.logits, teacher.logits, beta, entropy_weight=c.entropy_weight
        )
        guess = F.softmax(losses.at_least_float32(teacher.logits[count:]), dim=1)
        contrast = self._contrast(student, teacher.embeddings, labelled.label, guess)
        u = c.unsupervised_weight
        return {
            "supervised": losses.supervised_loss(student.logits[:count], labelled.label),
            "uncl": u * c.uncl_weight * consistency,
            "fecl": u * c.fecl_weight * contrast,
            "consistency": weight
            * losses.consistency_mse(student.logits[count:], teacher.logits[count:]),
        }

    def _contrast(
        self, student: Output, teacher: Tensor | None, label: Tensor, guess: Tensor
    ) -> Tensor:
        """FeCL over all patches: the labelled ones, then those whose classes are guessed."""
        c = self.config
        assert student.embeddings is not None
        d, h, w = student.embeddings.shape[2:]
        grid = (d, h, w)
        classes = student.logits.shape[1]
        with torch.no_grad():
            groups = torch.cat(
                [
                    label_cells(label, classes, grid),
                    pseudo_label_cells(guess, grid, c.teacher_confidence),
                ]
            )
            log_p = F.log_softmax(losses.at_least_float32(student.logits), dim=1)
            doubt = entropy_cells(log_p, grid)
            if not c.fecl_entropy:
                doubt = torch.zeros_like(doubt)
        z = cells(student.embeddings)
        z_t = cells(teacher) if teacher is not None and c.teacher_negatives else None
        if c.cross_volume:  # all cells of the batch as if they were one patch
            z, groups, doubt = (x.flatten(0, 1)[None] for x in (z, groups, doubt))
            z_t = None if z_t is None else z_t.flatten(0, 1)[None]
        return contrastive.fecl(
            z,
            groups,
            doubt,
            z_t,
            temperature=c.temperature,
            gamma=c.gamma,
            top_k=c.top_k,
        )
