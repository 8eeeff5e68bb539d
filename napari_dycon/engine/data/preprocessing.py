"""Preprocessing of scans: resampled, normalized, and cached as memory-mapped arrays.

The cache is keyed by path, size and time of the file and by the plan, so that it is never stale and
can be deleted at any time. Labels are not cached, because they change during annotation.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from napari_dycon.core.atomic import atomic_write, ensure_dir
from napari_dycon.core.types import UNANNOTATED, Array
from napari_dycon.engine.config import TrainConfig
from napari_dycon.errors import ProjectError
from napari_dycon.io import scan_fingerprint
from napari_dycon.io.volume import Volume, intensity_range

RETRY_HINT = "Delete it (files in the folder cache are regenerated), or start a new run."


def compute_grid_shape(
    shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]
) -> tuple[int, int, int]:
    """Compute the shape ``(D, H, W)`` of a volume resampled to the target spacing (mm)."""
    d, h, w = (
        n if abs(s - t) <= 0.01 * t else max(round(n * s / t), 1)
        for n, s, t in zip(shape, spacing, target, strict=True)
    )
    return d, h, w


def resample(array: Array, shape: tuple[int, int, int], *, mode: str = "trilinear") -> Array:
    """Resample ``(C, D, H, W)`` to another grid over the same field of view."""
    if array.shape[1:] == shape:
        return array
    tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))[None]
    if mode == "nearest":
        return F.interpolate(tensor, size=shape, mode="nearest-exact")[0].numpy()
    if mode == "area":
        return F.interpolate(tensor, size=shape, mode="area")[0].numpy()
    return F.interpolate(tensor, size=shape, mode=mode, align_corners=False)[0].numpy()


def normalize(array: Array, config: TrainConfig) -> npt.NDArray[np.float32]:
    """Normalize the intensities of ``(C, D, H, W)``.

    "zscore" clips each channel to its 0.5 and 99.5 % quantiles, then sets mean 0 and deviation 1;
    "clip" clips to a fixed range and scales it to [-1, 1].
    """
    array = array.astype(np.float32)
    if (
        config.preprocessing.normalization == "clip"
        and config.preprocessing.intensity_window is not None
    ):
        low, high = config.preprocessing.intensity_window
        center, half = (low + high) / 2, max(high - low, 1e-6) / 2
        return ((np.clip(array, low, high) - center) / half).astype(np.float32)
    for channel in array:
        low, high = intensity_range(channel)
        if high > low:
            np.clip(channel, low, high, out=channel)
        channel -= channel.mean()
        channel /= max(float(channel.std()), 1e-6)
    return array


def prepare_image(volume: Volume, config: TrainConfig) -> npt.NDArray[np.float32]:
    """Resample and normalize a scan for the planned network: float32 ``(C, D, H, W)``."""
    assert config.preprocessing.spacing is not None
    array = volume.array if volume.array.ndim == 4 else volume.array[None]
    shape = compute_grid_shape(volume.shape, volume.spacing_mm, config.preprocessing.spacing)
    return normalize(resample(array, shape), config)


def prepare_label(
    label: npt.NDArray[np.uint8], volume: Volume, config: TrainConfig
) -> npt.NDArray[np.uint8]:
    """Resample a label ``(D, H, W)`` to the planned grid.

    On a coarser grid a voxel gets the most frequent value of the annotated voxels it covers, or 255
    if none is annotated. Nearest-neighbor interpolation would lose single annotated slices.
    """
    assert config.preprocessing.spacing is not None
    shape = compute_grid_shape(volume.shape, volume.spacing_mm, config.preprocessing.spacing)
    if all(new >= old for new, old in zip(shape, label.shape, strict=True)):
        resampled = resample(label[None], shape, mode="nearest")[0]
        return np.asarray(resampled, dtype=np.uint8)
    result = np.full(shape, UNANNOTATED, np.uint8)
    max_fraction = np.zeros(shape, np.float32)
    for value in np.unique(label[label != UNANNOTATED]):
        fraction = resample((label == value)[None], shape, mode="area")[0]
        is_larger = fraction > max_fraction
        result[is_larger], max_fraction[is_larger] = value, fraction[is_larger]
    return result


def cache_path(folder: Path, case_id: str, images: Sequence[Path], config: TrainConfig) -> Path:
    """Return the path of a cached scan, different for every state of the files and every plan."""
    settings = [
        config.preprocessing.spacing,
        config.preprocessing.normalization,
        config.preprocessing.intensity_window,
    ]
    return folder / f"{case_id}-{_digest(images, settings)}.npy"


def fingerprint_path(folder: Path, case_id: str, images: Sequence[Path]) -> Path:
    """Return the path of a scan's cached fingerprint, different for every state of the files."""
    return folder / f"{case_id}-{_digest(images, 'fingerprint')}.json"


def _digest(images: Sequence[Path], settings: object) -> str:
    state = [(str(path), scan_fingerprint(path)) for path in images]
    return hashlib.sha256(json.dumps([state, settings]).encode()).hexdigest()[:16]


def save_array(path: Path, array: Array) -> None:
    """Write an ``.npy`` file atomically."""
    # Not its parents: a deleted project must not be recreated as an empty folder.
    ensure_dir(path.parent, existing_root=path.parent.parent)
    with atomic_write(path) as temporary:
        try:
            np.save(temporary, array, allow_pickle=False)
        except OSError as error:
            if error.errno is None:  # numpy reports a full disk without errno
                raise OSError("the file could not be written completely") from error
            raise


def read_image_array(path: Path, *, mapped: bool = True) -> Array:
    """Read a prepared scan: float32 or float16 ``(C, D, H, W)``, by default mapped."""
    return _read_array(path, 4, "f", mapped)


def read_label_array(path: Path, *, mapped: bool = True) -> Array:
    """Read a prepared label: uint8 ``(D, H, W)``, by default mapped."""
    return _read_array(path, 3, "u", mapped)


def _read_array(path: Path, dimensions: int, kind: str, mapped: bool) -> Array:
    """Read an array of ``save_array``; pickled objects are rejected, never loaded.

    The cache is not trusted, since a project may come from elsewhere.
    """
    if not path.exists():  # the folder is gone: there is nothing for the user to delete
        raise FileNotFoundError(errno.ENOENT, "the prepared scans are missing", path.name)
    try:
        if not path.is_file():
            raise ValueError("it is not a file")
        # Rejects Python objects, archives, and truncated files.
        array: Array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # noqa: BLE001 - NumPy parses headers as Python
        reason = str(error)[:200] or type(error).__name__
        raise ProjectError(
            f"{_describe_file(path)} cannot be read: {reason}. {RETRY_HINT}"
        ) from None
    if array.ndim != dimensions or array.dtype.kind != kind or min(array.shape) < 1:
        raise ProjectError(
            f"{_describe_file(path)} holds {array.dtype} {array.shape}, which no run has written. "
            f"{RETRY_HINT}"
        )
    return array if mapped else np.array(array)


def _describe_file(path: Path) -> str:
    return f"The prepared scan {path.name} in {path.parent}"
