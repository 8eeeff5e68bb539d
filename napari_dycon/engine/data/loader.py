"""Batches by step number: crops are read ahead by a thread, and augmented where the run trains.

Reading is copying, in which threads do not hinder each other: one of them keeps a GPU supplied, and
shares no memory that a container could be short of. On a CPU a thread would take from the training
what it gives, so there crops are read when they are needed.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from napari_dycon.engine.data.patches import Batch, CropBatch, StepBatches, UnlabeledCase
from napari_dycon.engine.data.preparation import TrainingData
from napari_dycon.engine.data.sampling import ClassVoxels
from napari_dycon.engine.data.volumes import (
    MappedVolumes,
    ResidentVolumes,
    Volumes,
    reserve_on_device,
)
from napari_dycon.engine.device import is_out_of_memory

READ_AHEAD = 2  # batches
SETTLED = 5  # batches after which it is known what memory training takes


class Batches:
    """Batches of a run; a batch depends on seed and step alone, so any step can be asked for.

    Parameters
    ----------
    device : where the run trains
    read_ahead : batches whose crops a thread prepares while the run trains; by default none on a
        CPU
    """

    def __init__(
        self, data: TrainingData, device: torch.device, read_ahead: int | None = None
    ) -> None:
        self._data = data
        self._device = device
        # Sampling in three dimensions is not there on Apple's GPUs in every version of torch.
        self._augments_on = device if device.type == "cuda" else torch.device("cpu")
        if read_ahead is None:
            read_ahead = 0 if device.type == "cpu" else READ_AHEAD
        self._read_ahead = read_ahead
        self._reader = ThreadPoolExecutor(1, "batches") if read_ahead else None
        self._waiting: deque[Future[CropBatch | Batch]] = deque()
        self._volumes: Volumes = MappedVolumes(pinned=device.type == "cuda")
        self._voxels: dict[Path, list[ClassVoxels]] = {}
        self._resident: ResidentVolumes | None = None  # in the making
        self._loading: Future[None] | None = None
        self._source: StepBatches | None = None
        self._unlabeled: list[UnlabeledCase] | None = None
        self._next, self._count = -1, 0

    def get(self, step: int, unlabeled: list[UnlabeledCase]) -> Batch:
        """Batch of a step; cheap when asked for step after step with the same unlabeled cases."""
        moved = self._move_to_device()
        if self._source is None or self._unlabeled is not unlabeled or moved:
            self._discard()
            self._source, self._unlabeled = self._make(unlabeled), unlabeled
        if step != self._next:
            self._discard()
        source, self._next = self._source, step + 1
        if self._reader is None or isinstance(self._volumes, ResidentVolumes):
            return self._finish(self._prepare(source, step))
        while len(self._waiting) <= self._read_ahead:
            number = step + len(self._waiting)
            self._waiting.append(self._reader.submit(self._prepare, source, number))
        return self._finish(self._waiting.popleft().result())

    def one(self, step: int, unlabeled: list[UnlabeledCase]) -> Batch:
        """Batch of a single step, none ahead."""
        return self._finish(self._prepare(self._make(unlabeled), step))

    def close(self) -> None:
        """End what is read ahead; no file stays open. Nothing can be asked for any more."""
        self._discard()
        if self._reader is not None:
            self._reader.shutdown(cancel_futures=True)

    def _prepare(self, source: StepBatches, step: int) -> CropBatch | Batch:
        """Do what the thread that reads ahead can do."""
        crops = source[step]
        if self._augments_on.type != "cpu":
            return crops
        return crops.augmented(self._augments_on)

    def _finish(self, found: CropBatch | Batch) -> Batch:
        batch = found.augmented(self._augments_on) if isinstance(found, CropBatch) else found
        return batch.to(self._device)

    def _discard(self) -> None:
        for waiting in self._waiting:
            waiting.cancel()
        self._waiting.clear()

    def _make(self, unlabeled: list[UnlabeledCase]) -> StepBatches:
        data = self._data
        return StepBatches(
            data.labeled,
            unlabeled,
            data.config,
            data.warped,
            data.voted,
            self._volumes,
            self._voxels,
        )

    def _move_to_device(self) -> bool:
        """Move one more volume to a device with room for all; whether the last has arrived."""
        self._count += 1
        if self._count == SETTLED and self._reader is not None:
            labeled = [*self._data.labeled, *self._data.warped, *self._data.voted]
            images = [case.image for case in labeled]
            images += [case.image for case in self._data.unlabeled]
            labels = [case.label for case in labeled]
            self._resident = reserve_on_device(images, labels, self._device)
        if self._resident is None or self._reader is None:
            return False
        if self._loading is not None:
            if not self._loading.done():
                return False
            try:
                self._loading.result()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._resident = self._loading = None  # volumes stay where they are
                return False
        if not self._resident.is_complete:
            self._loading = self._reader.submit(self._resident.load_next)
            return False
        self._volumes, self._resident = self._resident, None
        return True
