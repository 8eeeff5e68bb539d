"""Batches by step number, made in worker processes where there are cores to spare."""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from napari_dycon.engine.dataset import TrainingData
from napari_dycon.engine.patches import Batch, StepBatches


class Batches:
    """Batches of a run; a batch depends on seed and step alone, so any step can be asked for."""

    def __init__(self, data: TrainingData, device: torch.device) -> None:
        self._data = data
        self._workers = min(max((os.cpu_count() or 1) - 1, 0), 8) if device.type != "cpu" else 0
        self._device = device
        self._key: tuple[int, bool] | None = None
        self._iterator: Iterator[Batch] = iter(())

    def get(self, step: int, *, with_unlabelled: bool) -> Batch:
        """Batch of a step; cheap when asked for step after step."""
        if self._key != (step, with_unlabelled):
            config = self._data.config
            assert config.patch is not None
            unlabelled = self._data.unlabelled if with_unlabelled else []
            dataset = StepBatches(self._data.labelled, unlabelled, config, config.patch)
            loader = DataLoader(
                dataset,
                batch_size=None,
                sampler=range(step, len(dataset)),
                num_workers=self._workers,
                pin_memory=self._device.type == "cuda",
            )
            self._iterator = iter(loader)
        self._key = (step + 1, with_unlabelled)
        return next(self._iterator).to(self._device)
