"""Interface of training methods, and code shared by them.

The training loop does everything else: batches, precision, the optimizer, the teacher's moving
average, checkpoints. A method turns one batch into named, already weighted terms of a loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.data.patches import Batch, UnlabeledBatch
from napari_dycon.engine.methods.schedules import sigmoid_rampup
from napari_dycon.engine.network import NetworkOutput, SegmentationNetwork


@dataclass(frozen=True)
class StepInputs:
    """Inputs of a method in one step.

    ``progress`` is t / T of the semi-supervised phase; ``noise_generator`` draws the noise of the
    teacher's input.
    """

    student: SegmentationNetwork
    teacher: SegmentationNetwork
    batch: Batch
    progress: float
    noise_generator: torch.Generator

    @property
    def unlabeled(self) -> UnlabeledBatch:
        """The unlabeled half; the trainer uses ``Supervised`` for steps without one."""
        assert self.batch.unlabeled is not None
        return self.batch.unlabeled


class Method(Protocol):
    """A training method: computes the weighted loss terms of a batch."""

    def compute_loss_terms(self, step: StepInputs) -> dict[str, Tensor]:
        """Return the weighted terms of the loss, whose sum is minimized."""
        ...


def compute_losses(
    method: Method, step: StepInputs, device: torch.device, dtype: torch.dtype
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the terms of a step's loss in the run's precision, and their sum."""
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        loss_terms = method.compute_loss_terms(step)
        return loss_terms, torch.stack([part.float() for part in loss_terms.values()]).sum()


def add_input_noise(image: Tensor, generator: torch.Generator, std: float) -> Tensor:
    """Return image + clamp(std · N(0, 1), ±2 std), the teacher's input."""
    noise = torch.randn(image.shape, generator=generator, device=image.device, dtype=image.dtype)
    return image + (noise * std).clamp(-2 * std, 2 * std)


class TeacherStudentMethod:
    """Base of methods whose teacher predicts a noisy view of unlabeled patches."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def add_teacher_noise(self, image: Tensor, step: StepInputs) -> Tensor:
        """Return the teacher's view of ``(B, C, D, H, W)`` patches."""
        return add_input_noise(
            image, step.noise_generator, self.config.semi_supervised.teacher_noise_std
        )

    @torch.no_grad()
    def run_teacher(self, image: Tensor, step: StepInputs, *, embed: bool = False) -> NetworkOutput:
        """Run the teacher on a noisy view of ``(B, C, D, H, W)`` patches.

        Methods call it before the student's forward pass, while less memory is in use.
        """
        output: NetworkOutput = step.teacher(self.add_teacher_noise(image, step), embed=embed)
        return output

    def compute_consistency_weight(self, step: StepInputs) -> float:
        """Return w(t), the weight of the consistency term."""
        settings = self.config.semi_supervised
        return sigmoid_rampup(
            step.progress, settings.consistency_rampup, settings.consistency_weight
        )
