"""Where the voxels of a run's prepared scans are read from: the disk, or the training device.

Prepared scans are memory-mapped, so that a run of any size fits into memory. When all of them fit
into a part of a GPU's free memory they are kept there instead, and cropping costs the host nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_dycon.engine.preprocess import read_image_array, read_label_array

RESIDENT_FRACTION = 0.3  # of the free memory of a GPU


class Volumes(Protocol):
    """Volumes by the path of their file, and memory for crops of them."""

    def image(self, path: Path) -> Any:
        """Return a scan ``(C, D, H, W)``, an array or a tensor."""

    def label(self, path: Path) -> Any:
        """Return a label, uint8 ``(D, H, W)``, an array or a tensor."""

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Allocate a tensor for crops."""

    def view(self, tensor: Tensor) -> Any:
        """Return what a crop of a volume is written to."""

    def host_tensor(self, values: npt.NDArray[Any]) -> Tensor:
        """Copy a few numbers for the device."""


class MappedVolumes:
    """Memory-mapped volumes; crops are copied into host memory, pinned if a GPU fetches them."""

    def __init__(self, *, pinned: bool = False) -> None:
        self._pinned = pinned

    def image(self, path: Path) -> npt.NDArray[Any]:
        """Open a scan; files are not kept open, of which systems allow few."""
        return read_image_array(path)

    def label(self, path: Path) -> npt.NDArray[Any]:
        """Open a label."""
        return read_label_array(path)

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Allocate host memory."""
        return torch.empty(tuple(shape), dtype=dtype, pin_memory=self._pinned)

    def view(self, tensor: Tensor) -> npt.NDArray[Any]:
        """Return the tensor as an array."""
        return tensor.numpy()

    def host_tensor(self, values: npt.NDArray[Any]) -> Tensor:
        """Copy numbers into host memory that a GPU can fetch."""
        made = self.empty(values.shape, torch.float32)
        made.copy_(torch.from_numpy(values))
        return made


class ResidentVolumes:
    """Volumes kept on a device, each copied there when it is asked for first.

    All memory is taken at once, so that a lack of it shows before a run has begun to learn.
    """

    def __init__(
        self, images: Iterable[Path], labels: Iterable[Path], device: torch.device
    ) -> None:
        self._device = device
        self._volumes: dict[Path, Tensor] = {}
        self._missing: set[Path] = set()
        for read, paths in ((read_image_array, images), (read_label_array, labels)):
            for path in paths:
                array = read(path)
                dtype = torch.uint8 if array.ndim == 3 else _float_type(array)
                self._volumes[path] = torch.empty(array.shape, dtype=dtype, device=device)
                self._missing.add(path)

    def image(self, path: Path) -> Tensor:
        """Return a scan on the device."""
        if path in self._missing:
            self._fill(path, read_image_array(path))
        return self._volumes[path]

    def label(self, path: Path) -> Tensor:
        """Return a label on the device."""
        if path in self._missing:
            self._fill(path, read_label_array(path))
        return self._volumes[path]

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Allocate memory of the device."""
        return torch.empty(tuple(shape), dtype=dtype, device=self._device)

    def view(self, tensor: Tensor) -> Tensor:
        """Return the tensor itself."""
        return tensor

    def host_tensor(self, values: npt.NDArray[Any]) -> Tensor:
        """Copy numbers to the device without waiting for it."""
        return torch.from_numpy(values).to(self._device, non_blocking=True)

    def _fill(self, path: Path, array: npt.NDArray[Any]) -> None:
        there = self._volumes[path]
        native = np.float16 if there.dtype == torch.float16 else np.float32
        copy = np.array(array, dtype=np.uint8 if array.ndim == 3 else native)
        there.copy_(torch.from_numpy(copy))
        self._missing.discard(path)


def _float_type(array: npt.NDArray[Any]) -> torch.dtype:
    return torch.float16 if array.itemsize == 2 else torch.float32


def fit_on_device(paths: Iterable[Path], device: torch.device) -> bool:
    """Whether files fit into the part of a device's free memory that is set aside for them."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return sum(path.stat().st_size for path in paths) <= RESIDENT_FRACTION * free
