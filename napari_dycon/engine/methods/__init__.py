"""The training methods: one small protocol, and what differs between them.

The loop in ``train.py`` does everything else: batches, precision, the optimizer, the teacher's
moving average, checkpoints. A method turns one batch into named, already weighted parts of a loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.data.patches import Batch, UnlabeledBatch
from napari_dycon.engine.network import SegmentationNetwork


@dataclass(frozen=True)
class StepInputs:
    """What a method may use in one step.

    ``progress`` is t / T of the steps that unlabeled scans take part in, ``noise_generator`` seeds
    the teacher's view.
    """

    student: SegmentationNetwork
    teacher: SegmentationNetwork
    batch: Batch
    progress: float
    noise_generator: torch.Generator

    @property
    def unlabeled(self) -> UnlabeledBatch:
        """The unlabeled half; the loop takes ``Supervised`` for steps that have none."""
        assert self.batch.unlabeled is not None
        return self.batch.unlabeled


class Method(Protocol):
    """Turns a batch into the weighted parts of the loss; their sum is minimized."""

    def compute_loss_terms(self, step: StepInputs) -> dict[str, Tensor]: ...


def compute_losses(
    method: Method, step: StepInputs, device: torch.device, dtype: torch.dtype
) -> tuple[dict[str, Tensor], Tensor]:
    """Parts of a step's loss in the run's precision, and their sum."""
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        loss_terms = method.compute_loss_terms(step)
        return loss_terms, torch.stack([part.float() for part in loss_terms.values()]).sum()


def build_method(config: TrainConfig) -> Method:
    """Return the method a configuration names."""
    from napari_dycon.engine.methods.dycon import DyCON
    from napari_dycon.engine.methods.mean_teacher import MeanTeacher
    from napari_dycon.engine.methods.secl import SECL
    from napari_dycon.engine.methods.supervised import Supervised

    method_classes: dict[str, Callable[[TrainConfig], Method]] = {
        "supervised": Supervised,
        "mean-teacher": MeanTeacher,
        "dycon": DyCON,
        "secl-region": SECL,
        "secl-anatomical": SECL,
    }
    return method_classes[config.method](config)


def add_input_noise(image: Tensor, generator: torch.Generator, std: float) -> Tensor:
    """Image plus noise clamp(strength · N(0, 1), ±2 strength), as the teacher sees it."""
    noise = torch.randn(image.shape, generator=generator, device=image.device, dtype=image.dtype)
    return image + (noise * std).clamp(-2 * std, 2 * std)
