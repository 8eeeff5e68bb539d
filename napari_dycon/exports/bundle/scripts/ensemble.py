"""Student and teacher as one network."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Both networks' softmax outputs, their logits divided by a calibrated temperature."""

    def __init__(self, student: nn.Module, teacher: nn.Module, temperature: float) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher
        self.temperature = temperature

    def predict_member(self, number: int, image: Tensor) -> Tensor:
        """``(B, channels, D, H, W)`` to the probabilities of the student (even) or the teacher."""
        network = (self.student, self.teacher)[number % 2]
        return F.softmax(network(image).logits.float() / self.temperature, dim=1)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, channels, D, H, W)`` to mean probabilities ``(B, classes, D, H, W)``."""
        return (self.predict_member(0, image) + self.predict_member(1, image)) / 2
