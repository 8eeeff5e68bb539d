"""Batches by step number, made in worker processes where there are cores to spare."""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from napari_dycon.engine.dataset import TrainingData
from napari_dycon.engine.patches import Batch, StepBatches, UnlabelledCase


class Batches:
    """Batches of a run; a batch depends on seed and step alone, so any step can be asked for."""

    def __init__(self, data: TrainingData, device: torch.device) -> None:
        self._data = data
        self._workers = min(max((os.cpu_count() or 1) - 1, 0), 8) if device.type != "cpu" else 0
        self._device = device
        self._key: tuple[int, list[UnlabelledCase]] | None = None
        self._iterator: Iterator[Batch] = iter(())

    def get(self, step: int, unlabelled: list[UnlabelledCase]) -> Batch:
        """Batch of a step; cheap when asked for step after step with the same unlabelled cases."""
        if self._key is None or self._key[0] != step or self._key[1] is not unlabelled:
            config = self._data.config
            assert config.patch is not None
            data = self._data
            dataset = StepBatches(
                data.labelled, unlabelled, config, config.patch, data.warped, data.voted
            )
            loader = DataLoader(
                dataset,
                batch_size=None,
                sampler=range(step, len(dataset)),
                num_workers=self._workers,
                pin_memory=self._device.type == "cuda",
            )
            self._iterator = iter(loader)
        self._key = (step + 1, unlabelled)
        return next(self._iterator).to(self._device)
