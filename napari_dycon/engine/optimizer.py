"""The optimizer of a run."""

from __future__ import annotations

import torch

from napari_dycon.engine.config import TrainConfig


def build_optimizer(config: TrainConfig, network: torch.nn.Module) -> torch.optim.Optimizer:
    """AdamW, or SGD with momentum as the papers of the field use it."""
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            network.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
    return torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
