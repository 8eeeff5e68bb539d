"""Self-ensembling contrastive learning (SECL, Xiang et al., 2021, arXiv 2105.12924).

The encoder-decoder learns from labeled patches. On unlabeled ones a student encoder and its
moving average, each followed by a projection head, are contrasted at feature level. Which cells
belong together is decided in one of two ways: ``secl-region`` by where they lie in the volume,
``secl-anatomical`` by the class that the teacher predicts for them on the fly. Only the abstract of
the paper was available; the weight of the loss (0.1), its temperature (0.1), the 4x4x4 regions, the
confidence below which a cell has no class (0.8) and the stage at which contrast begins are this
program's own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.data.patches import UnlabeledBatch
from napari_dycon.engine.losses import segmentation
from napari_dycon.engine.losses.contrastive import secl
from napari_dycon.engine.losses.feature_grid import (
    FeatureShape,
    downsample_pseudo_labels_from_log_p,
    region_indices,
)
from napari_dycon.engine.methods import StepInputs, add_input_noise
from napari_dycon.engine.network import flatten_spatial


class SECL:
    """Supervised loss + weight · SECL between student and teacher on unlabeled patches."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def compute_loss_terms(self, step: StepInputs) -> dict[str, Tensor]:
        """Return ``supervised`` and ``secl``."""
        c = self.config
        labeled, unlabeled = step.batch.labeled, step.unlabeled
        noisy_image = add_input_noise(
            unlabeled.image, step.noise_generator, c.semi_supervised.teacher_noise_std
        )
        with torch.no_grad():  # first, while memory holds nothing of the student yet
            if c.method == "secl-region":
                teacher = step.teacher.encode(noisy_image)
                d, h, w = teacher.shape[2:]
                groups = self._region_labels(unlabeled, (d, h, w))
            else:
                output = step.teacher(noisy_image, embed=True)
                assert output.embeddings is not None
                teacher = output.embeddings
                d, h, w = teacher.shape[2:]
                groups = downsample_pseudo_labels_from_log_p(
                    segmentation.compute_log_probabilities(output.logits),
                    (d, h, w),
                    c.semi_supervised.pseudo_label_threshold,
                )
        logits = step.student(labeled.image).logits
        student = step.student.encode(unlabeled.image)
        contrast = secl(
            flatten_spatial(student),
            flatten_spatial(teacher),
            groups,
            temperature=c.secl.temperature,
        )
        return {
            "supervised": segmentation.supervised_loss(logits, labeled.label),
            "secl": c.secl.weight * contrast,
        }

    def _region_labels(self, batch: UnlabeledBatch, feature_shape: FeatureShape) -> Tensor:
        return region_indices(
            batch.patch_center, batch.patch_size, feature_shape, self.config.secl.region_grid
        )
