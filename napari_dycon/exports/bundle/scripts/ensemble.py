"""Ensemble of the student and the teacher network."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Student and teacher network with temperature-scaled softmax outputs."""

    def __init__(self, student: nn.Module, teacher: nn.Module, temperature: float) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher
        self.temperature = temperature

    def predict_member(self, number: int, image: Tensor) -> Tensor:
        """Predict class probabilities with one network: the student if ``number`` is even.

        ``image`` is ``(B, channels, D, H, W)``, the result ``(B, classes, D, H, W)``.
        """
        network = (self.student, self.teacher)[number % 2]
        return F.softmax(network(image).logits.float() / self.temperature, dim=1)

    def forward(self, image: Tensor) -> Tensor:
        """Compute mean probabilities ``(B, classes, D, H, W)`` from ``(B, channels, D, H, W)``."""
        return (self.predict_member(0, image) + self.predict_member(1, image)) / 2
