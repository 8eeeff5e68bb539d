"""Sources of the voxels of prepared scans: memory-mapped files, or the training device.

Scans are memory-mapped, so that a run of any size fits into memory. If all of them fit into a part
of a GPU's free memory, they are moved there, one per step, and cropping takes no time on the host.
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

RESIDENT_FRACTION = 0.3  # of the free GPU memory


class Volumes(Protocol):
    """Volumes by path, and memory for crops of them."""

    def image(self, path: Path) -> Any:
        """Return a scan ``(C, D, H, W)``, an array or a tensor."""

    def label(self, path: Path) -> Any:
        """Return a label, uint8 ``(D, H, W)``, an array or a tensor."""

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Allocate a tensor for crops."""

    def view(self, tensor: Tensor) -> Any:
        """Return the view that a crop of a volume is written to."""

    def copy_to_tensor(self, values: npt.NDArray[Any]) -> Tensor:
        """Copy a small array for the device."""


class MappedVolumes:
    """Memory-mapped volumes; crops are copied into host memory, optionally pinned."""

    def __init__(self, *, pin_memory: bool = False) -> None:
        self._pin_memory = pin_memory

    def image(self, path: Path) -> npt.NDArray[Any]:
        """Open a scan; the file is not kept open, because systems limit open files."""
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
        """Copy an array into host memory, optionally pinned."""
        tensor = self.empty(values.shape, torch.float32)
        tensor.copy_(torch.from_numpy(values))
        return tensor


class ResidentVolumes:
    """Volumes kept on a device.

    All memory is allocated at once, and ``load_next`` copies one volume after another; they can be
    read once ``is_complete``.
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
        """Copy one more volume to the device asynchronously."""
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
        """Copy an array to the device asynchronously."""
        return torch.from_numpy(values).to(self._device, non_blocking=True)


def _tensor_dtype(array: npt.NDArray[Any]) -> torch.dtype:
    if array.ndim == 3:
        return torch.uint8
    return torch.float16 if array.itemsize == 2 else torch.float32


def reserve_on_device(
    images: Sequence[Path], labels: Sequence[Path], device: torch.device
) -> ResidentVolumes | None:
    """Allocate GPU memory for all volumes of a run if enough is free, else return ``None``.

    To be called after the first steps, when the memory of training is known.
    """
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    # The peak of training exceeds the memory it holds now, and will be reached again.
    free -= torch.cuda.max_memory_reserved(device) - torch.cuda.memory_reserved(device)
    if sum(path.stat().st_size for path in {*images, *labels}) > RESIDENT_FRACTION * free:
        return None
    try:
        return ResidentVolumes(images, labels, device)
    except RuntimeError as error:
        if is_out_of_memory(error):  # other programs use memory as well
            return None
        raise
