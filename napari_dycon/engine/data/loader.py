"""Loader of batches by step number: crops are prefetched and augmented on the training device.

Reading is copying, which releases the interpreter lock: one thread keeps a GPU supplied, without
the shared memory of worker processes, which containers limit. On a CPU a thread would compete with
training, so crops are read when needed.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from napari_dycon.engine.data.cases import UnlabeledCase
from napari_dycon.engine.data.patches import Batch, CropBatch, PatchBatchDataset
from napari_dycon.engine.data.preparation import TrainingData
from napari_dycon.engine.data.sampling import ClassVoxels
from napari_dycon.engine.data.volumes import (
    MappedVolumes,
    ResidentVolumes,
    Volumes,
    reserve_on_device,
)
from napari_dycon.engine.device import is_out_of_memory

READ_AHEAD_BATCHES = 2  # batches
WARMUP_BATCHES = 5  # batches after which the memory of training is known


class BatchLoader:
    """Batches of a run; a batch depends only on seed and step, so any step can be loaded.

    Parameters
    ----------
    device : training device
    read_ahead : number of batches whose crops a thread prefetches; by default none on a CPU
    """

    def __init__(
        self, data: TrainingData, device: torch.device, read_ahead: int | None = None
    ) -> None:
        self._data = data
        self._device = device
        # Not all versions of torch implement 3D sampling on Apple GPUs.
        self._augmentation_device = device if device.type == "cuda" else torch.device("cpu")
        if read_ahead is None:
            read_ahead = 0 if device.type == "cpu" else READ_AHEAD_BATCHES
        self._read_ahead = read_ahead
        self._reader = ThreadPoolExecutor(1, "batches") if read_ahead else None
        self._pending: deque[Future[CropBatch | Batch]] = deque()
        self._volumes: Volumes = MappedVolumes(pin_memory=device.type == "cuda")
        self._class_voxels: dict[Path, list[ClassVoxels]] = {}
        self._resident: ResidentVolumes | None = None  # being filled
        self._loading: Future[None] | None = None
        self._dataset: PatchBatchDataset | None = None
        self._unlabeled: list[UnlabeledCase] | None = None
        self._next_step, self._batch_count = -1, 0

    def get(self, step: int, unlabeled: list[UnlabeledCase]) -> Batch:
        """Return the batch of a step; prefetched if steps are consecutive with the same cases."""
        has_moved = self._move_to_device()
        if self._dataset is None or self._unlabeled is not unlabeled or has_moved:
            self._discard()
            self._dataset, self._unlabeled = self._build_dataset(unlabeled), unlabeled
        if step != self._next_step:
            self._discard()
        dataset, self._next_step = self._dataset, step + 1
        if self._reader is None or isinstance(self._volumes, ResidentVolumes):
            return self._finish(self._prepare(dataset, step))
        while len(self._pending) <= self._read_ahead:
            number = step + len(self._pending)
            self._pending.append(self._reader.submit(self._prepare, dataset, number))
        return self._finish(self._pending.popleft().result())

    def load_single(self, step: int, unlabeled: list[UnlabeledCase]) -> Batch:
        """Return the batch of a single step without prefetching others."""
        return self._finish(self._prepare(self._build_dataset(unlabeled), step))

    def close(self) -> None:
        """Stop prefetching and close all files; no further batch can be loaded."""
        self._discard()
        if self._reader is not None:
            self._reader.shutdown(cancel_futures=True)

    def _prepare(self, dataset: PatchBatchDataset, step: int) -> CropBatch | Batch:
        """Run the part of loading that the prefetching thread can do."""
        crops = dataset[step]
        if self._augmentation_device.type != "cpu":
            return crops
        return crops.augment(self._augmentation_device)

    def _finish(self, prepared: CropBatch | Batch) -> Batch:
        batch = (
            prepared.augment(self._augmentation_device)
            if isinstance(prepared, CropBatch)
            else prepared
        )
        return batch.to(self._device)

    def _discard(self) -> None:
        for future in self._pending:
            future.cancel()
        self._pending.clear()

    def _build_dataset(self, unlabeled: list[UnlabeledCase]) -> PatchBatchDataset:
        data = self._data
        return PatchBatchDataset(
            data.labeled,
            unlabeled,
            data.config,
            data.registered_cases,
            data.pseudo_labeled_cases,
            self._volumes,
            self._class_voxels,
        )

    def _move_to_device(self) -> bool:
        """Move one more volume to a device with memory for all; return whether all are there."""
        self._batch_count += 1
        if self._batch_count == WARMUP_BATCHES and self._reader is not None:
            labeled = [
                *self._data.labeled,
                *self._data.registered_cases,
                *self._data.pseudo_labeled_cases,
            ]
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
                self._resident = self._loading = None  # volumes stay on the disk
                return False
        if not self._resident.is_complete:
            self._loading = self._reader.submit(self._resident.load_next)
            return False
        self._volumes, self._resident = self._resident, None
        return True
