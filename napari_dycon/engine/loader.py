"""Batches by step number: crops are read ahead by a thread, and augmented where the run trains.

Reading is copying, in which threads do not hinder each other: one of them keeps a GPU supplied, and
shares no memory that a container could be short of. On a CPU a thread would take from the training
what it gives, so there crops are read when they are needed.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from napari_dycon.engine.dataset import TrainingData
from napari_dycon.engine.patches import Batch, CropBatch, StepBatches, UnlabelledCase
from napari_dycon.engine.volumes import MappedVolumes, ResidentVolumes, Volumes, fit_on_device

READ_AHEAD = 2  # batches


class Batches:
    """Batches of a run; a batch depends on seed and step alone, so any step can be asked for.

    Parameters
    ----------
    device : where the run trains
    read_ahead : batches whose crops a thread prepares while the run trains; by default none on a
        CPU and where the scans are kept on the device
    """

    def __init__(
        self, data: TrainingData, device: torch.device, read_ahead: int | None = None
    ) -> None:
        self._data = data
        self._device = device
        # Sampling in three dimensions is not there on Apple's GPUs in every version of torch.
        self._augments_on = device if device.type == "cuda" else torch.device("cpu")
        self._wanted_ahead = read_ahead
        self._volumes: Volumes | None = None
        self._source: StepBatches | None = None
        self._unlabelled: list[UnlabelledCase] | None = None
        self._next = -1
        self._waiting: deque[Future[CropBatch | Batch]] = deque()
        self._reader: ThreadPoolExecutor | None = None

    def get(self, step: int, unlabelled: list[UnlabelledCase]) -> Batch:
        """Batch of a step; cheap when asked for step after step with the same unlabelled cases."""
        if self._unlabelled is not unlabelled or self._source is None:
            self._discard()
            self._source, self._unlabelled = self._make(unlabelled), unlabelled
        if step != self._next:
            self._discard()
        source, self._next = self._source, step + 1
        ahead = self._read_ahead()
        if not ahead:
            return self._finish(self._prepare(source, step))
        if self._reader is None:
            self._reader = ThreadPoolExecutor(1, thread_name_prefix="batches")
        while len(self._waiting) <= ahead:
            number = step + len(self._waiting)
            self._waiting.append(self._reader.submit(self._prepare, source, number))
        return self._finish(self._waiting.popleft().result())

    def one(self, step: int, unlabelled: list[UnlabelledCase]) -> Batch:
        """Batch of a single step, none ahead."""
        return self._finish(self._prepare(self._make(unlabelled), step))

    def close(self) -> None:
        """End what is read ahead; no file stays open."""
        self._discard()
        if self._reader is not None:
            self._reader.shutdown()
        self._reader = self._source = self._volumes = None

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

    def _read_ahead(self) -> int:
        if self._wanted_ahead is not None:
            return self._wanted_ahead
        without = self._device.type == "cpu" or isinstance(self._volumes, ResidentVolumes)
        return 0 if without else READ_AHEAD

    def _make(self, unlabelled: list[UnlabelledCase]) -> StepBatches:
        data = self._data
        if self._volumes is None:
            self._volumes = _choose_volumes(data, self._device)
        return StepBatches(
            data.labelled, unlabelled, data.config, data.warped, data.voted, self._volumes
        )


def _choose_volumes(data: TrainingData, device: torch.device) -> Volumes:
    """Keep all scans of a run on the device if they fit, else read them from the disk."""
    labelled = [*data.labelled, *data.warped, *data.voted]
    images = [case.image for case in labelled] + [case.image for case in data.unlabelled]
    labels = [case.label for case in labelled]
    if fit_on_device({*images, *labels}, device):
        return ResidentVolumes(images, labels, device)
    return MappedVolumes(pinned=device.type == "cuda")
