"""DyCON (Assefa et al., CVPR 2025): uncertainty-aware consistency and contrastive learning.

``loss = supervised + u · (UnCL + FeCL) + w(t) · MSE``, with UnCL and FeCL over the whole batch and
the MSE over its unlabeled half. The classes that FeCL compares come from the true label in
labeled patches and from the teacher's own prediction in unlabeled ones: the label of an
unlabeled case is never read.
"""

from __future__ import annotations

import torch
from torch import Tensor

from napari_dycon.engine.losses.consistency import compare, consistency_from_distance
from napari_dycon.engine.losses.feature_grid import (
    downsample_entropy,
    downsample_labels,
    downsample_pseudo_labels_from_log_p,
)
from napari_dycon.engine.losses.fecl import fecl
from napari_dycon.engine.losses.probability import compute_log_probabilities
from napari_dycon.engine.losses.supervised import supervised_from_log_probabilities
from napari_dycon.engine.losses.uncl import uncl_from_comparison
from napari_dycon.engine.methods.base import StepInputs, TeacherStudentMethod
from napari_dycon.engine.methods.schedules import adaptive_beta, teacher_threshold
from napari_dycon.engine.network import NetworkOutput, flatten_spatial


class DyCON(TeacherStudentMethod):
    """DyCON without label leakage."""

    def compute_loss_terms(self, step: StepInputs) -> dict[str, Tensor]:
        """Return ``supervised``, ``uncl``, ``fecl`` and ``consistency``, each weighted."""
        c = self.config
        labeled, unlabeled = step.batch.labeled, step.unlabeled
        n_labeled = len(labeled.image)
        image = torch.cat([labeled.image, unlabeled.image])
        teacher = self.run_teacher(image, step, embed=True)
        student: NetworkOutput = step.student(image, embed=True)
        # Computed once per step; several loss terms use them.
        log_p, teacher_log_p = (compute_log_probabilities(x.logits) for x in (student, teacher))
        comparison = compare(log_p, teacher_log_p)
        beta = adaptive_beta(step.progress, c.uncl.beta_max, c.uncl.beta_min)
        uncl = uncl_from_comparison(comparison, beta, entropy_weight=c.uncl.entropy_weight)
        contrast = self._compute_fecl(
            step,
            student.embeddings,
            teacher.embeddings,
            unlabeled_log_p=teacher_log_p[n_labeled:],
            entropy=comparison.student_entropy,
        )
        consistency = consistency_from_distance(comparison.distance[n_labeled:], log_p.shape[1])
        u = c.semi_supervised.weight
        return {
            "supervised": supervised_from_log_probabilities(log_p[:n_labeled], labeled.label),
            "uncl": u * c.uncl.weight * uncl,
            "fecl": u * c.fecl.weight * contrast,
            "consistency": self.compute_consistency_weight(step) * consistency,
        }

    def _compute_fecl(
        self,
        step: StepInputs,
        student: Tensor | None,
        teacher: Tensor | None,
        *,
        unlabeled_log_p: Tensor,
        entropy: Tensor,
    ) -> Tensor:
        """Compute FeCL over labeled patches and those with the teacher's pseudo-labels."""
        c = self.config
        assert student is not None
        assert teacher is not None
        d, h, w = student.shape[2:]
        feature_shape, classes = (d, h, w), unlabeled_log_p.shape[1]
        with torch.no_grad():
            labels = torch.cat(
                [
                    downsample_labels(step.batch.labeled.label, classes, feature_shape),
                    downsample_pseudo_labels_from_log_p(
                        unlabeled_log_p, feature_shape, c.semi_supervised.pseudo_label_threshold
                    ),
                ]
            )
            location_entropy = downsample_entropy(entropy.detach(), classes, feature_shape)
            if not c.fecl.entropy_weighting:
                location_entropy = torch.zeros_like(location_entropy)
        z, z_t = flatten_spatial(student), flatten_spatial(teacher)
        if c.fecl.cross_patch:  # all locations of the batch as one patch
            z, z_t, labels, location_entropy = (
                x.flatten(0, 1)[None] for x in (z, z_t, labels, location_entropy)
            )
        return fecl(
            z,
            labels,
            location_entropy,
            z_t,
            temperature=c.fecl.temperature,
            gamma=c.fecl.focal_gamma,
            negative_gamma=c.fecl.negative_gamma,
            teacher_weight=c.fecl.teacher_weight,
            threshold=teacher_threshold(step.progress),
        )
