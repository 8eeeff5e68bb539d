"""Student and teacher as one network."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Mean of both networks' softmax outputs, their logits divided by a calibrated temperature."""

    def __init__(self, student: nn.Module, teacher: nn.Module, temperature: float) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher
        self.temperature = temperature

    def forward(self, image: Tensor) -> Tensor:
        """``(B, channels, D, H, W)`` to probabilities ``(B, classes, D, H, W)``."""
        student, teacher = (
            F.softmax(network(image).logits.float() / self.temperature, dim=1)
            for network in (self.student, self.teacher)
        )
        return (student + teacher) / 2
