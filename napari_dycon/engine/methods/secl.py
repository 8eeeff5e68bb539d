"""Self-ensembling contrastive learning (SECL, Xiang et al., 2021, arXiv 2105.12924).

The encoder-decoder learns from labeled patches. On unlabeled ones a student encoder and its
moving average, each followed by a projection head, are contrasted at feature level. Which locations
form a group is determined in one of two ways: ``secl-region`` by their position in the volume,
``secl-anatomical`` by the class that the teacher predicts. Only the abstract of the paper was
available; the weight of the loss (0.1), its temperature (0.1), the 4x4x4 regions, the confidence
below which a location has no class (0.8) and the start of the contrastive loss are choices of this
implementation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from napari_dycon.engine.data.patches import UnlabeledBatch
from napari_dycon.engine.losses.feature_grid import (
    FeatureShape,
    downsample_pseudo_labels_from_log_p,
    region_indices,
)
from napari_dycon.engine.losses.probability import compute_log_probabilities
from napari_dycon.engine.losses.secl import secl
from napari_dycon.engine.losses.supervised import supervised_loss
from napari_dycon.engine.methods.base import StepInputs, TeacherStudentMethod
from napari_dycon.engine.network import flatten_spatial


class SECL(TeacherStudentMethod):
    """Supervised loss + weight · SECL between student and teacher on unlabeled patches."""

    def compute_loss_terms(self, step: StepInputs) -> dict[str, Tensor]:
        """Return ``supervised`` and ``secl``."""
        c = self.config
        labeled, unlabeled = step.batch.labeled, step.unlabeled
        teacher, groups = self._embed_by_teacher(step)
        logits = step.student(labeled.image).logits
        student = step.student.encode(unlabeled.image)
        contrast = secl(
            flatten_spatial(student),
            flatten_spatial(teacher),
            groups,
            temperature=c.secl.temperature,
        )
        return {
            "supervised": supervised_loss(logits, labeled.label),
            "secl": c.secl.weight * contrast,
        }

    @torch.no_grad()
    def _embed_by_teacher(self, step: StepInputs) -> tuple[Tensor, Tensor]:
        """Compute the teacher's embeddings ``(U, E, d, h, w)`` and groups ``(U, N)``."""
        if self.config.method == "secl-region":
            embeddings = step.teacher.encode(self.add_teacher_noise(step.unlabeled.image, step))
            d, h, w = embeddings.shape[2:]
            return embeddings, self._region_labels(step.unlabeled, (d, h, w))
        output = self.run_teacher(step.unlabeled.image, step, embed=True)
        assert output.embeddings is not None
        d, h, w = output.embeddings.shape[2:]
        groups = downsample_pseudo_labels_from_log_p(
            compute_log_probabilities(output.logits),
            (d, h, w),
            self.config.semi_supervised.pseudo_label_threshold,
        )
        return output.embeddings, groups

    def _region_labels(self, batch: UnlabeledBatch, feature_shape: FeatureShape) -> Tensor:
        return region_indices(
            batch.patch_center, batch.patch_size, feature_shape, self.config.secl.region_grid
        )
