"""Where the voxels of a run's prepared scans are read from: the disk, or the training device.

Prepared scans are memory-mapped, so that a run of any size fits into memory. When all of them fit
into a part of a GPU's free memory they move there, one a step, and cropping costs the host nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt
import torch
from torch import Tensor

from napari_dycon.engine.data.preprocessing import read_image_array, read_label_array
from napari_dycon.engine.device import is_out_of_memory

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

    def copy_to_tensor(self, values: npt.NDArray[Any]) -> Tensor:
        """Copy a few numbers for the device."""


class MappedVolumes:
    """Memory-mapped volumes; crops are copied into host memory, pinned if a GPU fetches them."""

    def __init__(self, *, pin_memory: bool = False) -> None:
        self._pin_memory = pin_memory

    def image(self, path: Path) -> npt.NDArray[Any]:
        """Open a scan; files are not kept open, of which systems allow few."""
        return read_image_array(path)

    def label(self, path: Path) -> npt.NDArray[Any]:
        """Open a label."""
        return read_label_array(path)

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Allocate host memory."""
        return torch.empty(tuple(shape), dtype=dtype, pin_memory=self._pin_memory)

    def view(self, tensor: Tensor) -> npt.NDArray[Any]:
        """Return the tensor as an array."""
        return tensor.numpy()

    def copy_to_tensor(self, values: npt.NDArray[Any]) -> Tensor:
        """Copy numbers into host memory that a GPU can fetch."""
        tensor = self.empty(values.shape, torch.float32)
        tensor.copy_(torch.from_numpy(values))
        return tensor


class ResidentVolumes:
    """Volumes kept on a device.

    All memory is taken at once, and ``load_next`` copies one volume after another there; they can
    be read when ``is_complete``.
    """

    def __init__(
        self, images: Iterable[Path], labels: Iterable[Path], device: torch.device
    ) -> None:
        self._device = device
        self._volumes: dict[Path, Tensor] = {}
        self._missing: list[tuple[Path, Callable[[Path], npt.NDArray[Any]]]] = []
        for read, paths in ((read_image_array, images), (read_label_array, labels)):
            for path in dict.fromkeys(paths):
                array = read(path)
                self._volumes[path] = self.empty(array.shape, _tensor_dtype(array))
                self._missing.append((path, read))

    @property
    def is_complete(self) -> bool:
        """Whether all volumes are on the device."""
        return not self._missing

    def load_next(self) -> None:
        """Copy one more volume to the device, without waiting for it."""
        path, read = self._missing[-1]
        target = self._volumes[path]
        is_cuda = self._device.type == "cuda"
        staging = torch.empty(target.shape, dtype=target.dtype, pin_memory=is_cuda)
        staging.numpy()[...] = read(path)
        target.copy_(staging, non_blocking=True)
        self._missing.pop()

    def image(self, path: Path) -> Tensor:
        """Return a scan on the device."""
        return self._volumes[path]

    def label(self, path: Path) -> Tensor:
        """Return a label on the device."""
        return self._volumes[path]

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Allocate memory of the device."""
        return torch.empty(tuple(shape), dtype=dtype, device=self._device)

    def view(self, tensor: Tensor) -> Tensor:
        """Return the tensor itself."""
        return tensor

    def copy_to_tensor(self, values: npt.NDArray[Any]) -> Tensor:
        """Copy numbers to the device without waiting for it."""
        return torch.from_numpy(values).to(self._device, non_blocking=True)


def _tensor_dtype(array: npt.NDArray[Any]) -> torch.dtype:
    if array.ndim == 3:
        return torch.uint8
    return torch.float16 if array.itemsize == 2 else torch.float32


def reserve_on_device(
    images: Sequence[Path], labels: Sequence[Path], device: torch.device
) -> ResidentVolumes | None:
    """Memory of a GPU for all volumes of a run, if it has that to spare.

    To be asked for after the first steps, when it is known what training takes.
    """
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    # At its peak training has taken more than it holds now, and will again.
    free -= torch.cuda.max_memory_reserved(device) - torch.cuda.memory_reserved(device)
    if sum(path.stat().st_size for path in {*images, *labels}) > RESIDENT_FRACTION * free:
        return None
    try:
        return ResidentVolumes(images, labels, device)
    except RuntimeError as error:
        if is_out_of_memory(error):  # other programs take memory as well
            return None
        raise
