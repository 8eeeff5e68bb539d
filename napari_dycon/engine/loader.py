"""Batches by step number, made in worker processes where there are cores to spare."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset

from napari_dycon.engine.dataset import TrainingData
from napari_dycon.engine.patches import Batch, StepBatches, UnlabelledCase
from napari_dycon.errors import DyconError


class Batches:
    """Batches of a run; a batch depends on seed and step alone, so any step can be asked for."""

    def __init__(self, data: TrainingData, device: torch.device) -> None:
        self._data = data
        self._workers = min(max(_cores() - 1, 0), 8) if device.type != "cpu" else 0
        self._device = device
        self._key: tuple[int, list[UnlabelledCase]] | None = None
        self._iterator: Iterator[Batch | Exception] = iter(())

    def get(self, step: int, unlabelled: list[UnlabelledCase]) -> Batch:
        """Batch of a step; cheap when asked for step after step with the same unlabelled cases."""
        if self._key is None or self._key[0] != step or self._key[1] is not unlabelled:
            told = _Told(self._made(unlabelled))
            loader = DataLoader(
                told,
                batch_size=None,
                sampler=range(step, len(told)),
                num_workers=self._workers,
                worker_init_fn=_ignore_interrupts,
                pin_memory=self._device.type == "cuda",
            )
            self._iterator = iter(loader)
        self._key = (step + 1, unlabelled)
        found = next(self._iterator)
        if isinstance(found, Exception):
            raise found
        return found.to(self._device)

    def one(self, step: int, unlabelled: list[UnlabelledCase]) -> Batch:
        """Batch of a single step, without workers."""
        return self._made(unlabelled)[step].to(self._device)

    def _made(self, unlabelled: list[UnlabelledCase]) -> StepBatches:
        data, config = self._data, self._data.config
        assert config.patch is not None
        return StepBatches(data.labelled, unlabelled, config, config.patch, data.warped, data.voted)


class _Told(Dataset["Batch | Exception"]):
    """Batches, or why one cannot be made.

    The loader would make a page of a worker's error, and between processes an error loses what led
    to it: its first cause is handed over, and the places in the code for a report.
    """

    def __init__(self, batches: StepBatches) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, step: int) -> Batch | Exception:
        try:
            return self._batches[step]
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            while error.__cause__ is not None and not isinstance(error, DyconError):
                if not isinstance(error.__cause__, Exception):
                    break
                error = error.__cause__
                frames += traceback.extract_tb(error.__traceback__)
            error.frames = [(f.filename, f.lineno, f.name) for f in frames]  # type: ignore[attr-defined]
            return error


def _cores() -> int:
    """Cores that this process may use, which in containers and queues are not all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _ignore_interrupts(_: int) -> None:
    """Leave Ctrl+C to the run, which ends in order; a worker that dies of it would end it first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
