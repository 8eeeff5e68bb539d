"""Memory of a training step: estimate, available memory, and ways to reduce it.

Memory is reduced in three ways: the batch is split into micro-batches whose gradients are
accumulated, which changes results only slightly; features are recomputed in the backward pass,
which does not change results but takes a quarter longer; finally patches are shrunk. All are
settings of the run (``accumulation_steps``, ``activation_checkpointing`` and ``patch_size``), so
that a resumed run continues with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

import torch
from pydantic import Field, StrictBool, StrictInt, TypeAdapter, ValidationError
from torch import Tensor

from napari_dycon.core.available_memory import available_memory
from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.data.patches import Batch, LabeledBatch, UnlabeledBatch
from napari_dycon.engine.data.planning import (
    compute_min_patch_side,
    estimate_patch_bytes,
    reduce_batch_memory,
)
from napari_dycon.engine.device import empty_cache, is_out_of_memory

P = TypeVar("P")
T = TypeVar("T")

USABLE_FRACTION = 0.75  # of the free memory; the rest is for fragments and other programs
SHRINK_FRACTION = 0.7  # voxels of the next smaller patch, as a fraction at most
# Contrastive losses compare all pairs of embeddings of a patch; measured: 20 to 31 bytes per pair.
CONTRASTIVE_METHODS, BYTES_PER_PAIR = ("dycon", "secl-region", "secl-anatomical"), 32


PatchSide = Annotated[StrictInt, Field(ge=1, le=1024)]  # voxels


@dataclass(frozen=True)
class MemoryPlan:
    """Settings that determine the memory of a training step.

    Parameters
    ----------
    patch : voxels (D, H, W)
    accumulation_steps : number of micro-batches of equal size that a batch is split into
    activation_checkpointing : whether features are recomputed in the backward pass
    """

    patch: tuple[PatchSide, PatchSide, PatchSide]
    accumulation_steps: Annotated[StrictInt, Field(ge=1, le=256)] = 1
    activation_checkpointing: StrictBool = False

    @classmethod
    def from_config(cls, config: TrainConfig) -> MemoryPlan:
        """Return the plan of a run."""
        assert config.batch.patch_size is not None
        return cls(
            config.batch.patch_size,
            config.batch.accumulation_steps,
            config.batch.activation_checkpointing,
        )

    @classmethod
    def from_json(cls, values: object) -> MemoryPlan | None:
        """Return the plan stored in a checkpoint, ``None`` if there is none."""
        try:
            return TypeAdapter(cls).validate_python(values)
        except ValidationError:
            return None

    def apply(self, config: TrainConfig) -> TrainConfig:
        """Return the settings with this plan."""
        return config.with_changes(
            {
                "batch.patch_size": self.patch,
                "batch.accumulation_steps": self.accumulation_steps,
                "batch.activation_checkpointing": self.activation_checkpointing,
            }
        )

    def reduce(self, config: TrainConfig) -> MemoryPlan | None:
        """Return the next smaller plan, ``None`` if there is none."""
        current = self.apply(config)
        reduced = reduce_batch_memory(current)
        if reduced is None:
            patch = shrink_patch(
                self.patch, config.network.stride, compute_min_patch_side(config.network.stride)
            )
            reduced = current.with_changes({"batch.patch_size": patch})
        return None if reduced == current else MemoryPlan.from_config(reduced)

    def estimate_bytes(
        self, config: TrainConfig, *, channels: int, classes: int, has_unlabeled: bool
    ) -> int:
        """Estimate the memory of a step, without that of the networks."""
        n_patches = config.batch.labeled_size + (
            config.batch.unlabeled_size if has_unlabeled else 0
        )
        patch_bytes = estimate_patch_bytes(self.apply(config), channels=channels, classes=classes)
        if has_unlabeled and config.method in CONTRASTIVE_METHODS:  # at twice the resolution
            locations = math.prod(-(-2 * side // config.network.stride) for side in self.patch)
            patch_bytes += BYTES_PER_PAIR * locations**2
        return math.ceil(n_patches / self.accumulation_steps) * patch_bytes

    def describe_change(self, previous: MemoryPlan, device: str) -> str:
        """Describe in one sentence what was reduced, and that training continues."""
        changes = []
        if self.accumulation_steps != previous.accumulation_steps:
            changes.append(f"each step is computed in {self.accumulation_steps} parts")
        if self.activation_checkpointing != previous.activation_checkpointing:
            changes.append("features are recomputed, which takes a quarter longer")
        if self.patch != previous.patch:
            changes.append(f"patches are {'×'.join(map(str, self.patch))} voxels")
        device_name = "This computer" if device == "cpu" else "The graphics card"
        return (
            f"{device_name} has too little memory for this plan, so {_join_words(changes)} now; "
            "training continues."
        )


def _join_words(words: Sequence[str]) -> str:
    """Join words with commas, and "and" before the last one."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def shrink_patch(
    patch: Sequence[int], stride: int, min_side: int, fraction: float = SHRINK_FRACTION
) -> tuple[int, int, int]:
    """Shorten the longest sides, in multiples of the stride, to a fraction of the voxels.

    No side becomes shorter than ``min_side``; a patch that cannot shrink is returned unchanged.
    """
    sides = list(patch)
    while math.prod(sides) > fraction * math.prod(patch):
        longest = max(range(3), key=lambda axis: sides[axis])
        if sides[longest] - stride < min_side:
            break
        sides[longest] -= stride
    d, h, w = sides
    return d, h, w


def fit_to_memory(
    config: TrainConfig, free_bytes: int, *, channels: int, classes: int, has_unlabeled: bool
) -> TrainConfig:
    """Reduce the plan until its estimate fits into the free memory, or no smaller one exists."""
    memory = MemoryPlan.from_config(config)
    while memory.estimate_bytes(
        config, channels=channels, classes=classes, has_unlabeled=has_unlabeled
    ) > (USABLE_FRACTION * free_bytes):
        reduced = memory.reduce(config)
        if reduced is None:
            break
        memory = reduced
    return memory.apply(config)


def split_batch(batch: Batch, parts: int) -> list[Batch]:
    """Split a batch into micro-batches; ``parts`` divides the labeled and the unlabeled half."""
    if parts == 1:
        return [batch]
    labeled = [LabeledBatch(*part) for part in _chunk_tensors(batch.labeled, parts)]
    if batch.unlabeled is None:
        return [Batch(part, None) for part in labeled]
    unlabeled = [UnlabeledBatch(*part) for part in _chunk_tensors(batch.unlabeled, parts)]
    return [Batch(*halves) for halves in zip(labeled, unlabeled, strict=True)]


def _chunk_tensors(tensors: Sequence[Tensor], parts: int) -> list[tuple[Tensor, ...]]:
    return list(zip(*(tensor.chunk(parts) for tensor in tensors), strict=True))


def retry_with_less_memory(
    compute: Callable[[P], T], plans: Iterable[P], device: torch.device
) -> T:
    """Compute with the first of several plans that fits into memory.

    Raises
    ------
    MemoryError
        None of the plans fits.
    """
    reason = ""
    for plan in plans:
        try:
            return compute(plan)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error)  # the error itself would keep tensors alive
        empty_cache(device)
    raise MemoryError(reason)


def get_free_bytes(device: torch.device) -> int | None:
    """Return the memory that this process can still allocate on a device, ``None`` if unknown."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + unused
    return available_memory() if device.type == "cpu" else None
