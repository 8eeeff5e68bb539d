"""What class, region or doubt each cell of an embedding map stands for.

A patch of ``(D, H, W)`` voxels has a coarse grid of ``(d, h, w)`` cells, ``N = d h w``.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_dycon.engine.losses.segmentation import entropy

IGNORED = -1
LEAST_ANNOTATED = 0.1  # of a cell; every fifth slice is an eighth of a cell of eight slices
Grid = tuple[int, int, int]  # cells (d, h, w) of a patch


def label_cells(label: Tensor, classes: int, grid: Grid) -> Tensor:
    """Majority class of each cell: ``(B, D, H, W)`` int64 labels to ``(B, N)``.

    Only annotated voxels vote; a cell of which less than ``LEAST_ANNOTATED`` is annotated is -1.
    """
    votes = _shares(label, classes, grid)
    cells = votes.argmax(dim=1)
    cells = cells.masked_fill(votes.sum(dim=1) < LEAST_ANNOTATED, IGNORED)
    return cells.flatten(1)


def pseudo_label_cells(teacher_probabilities: Tensor, grid: Grid, confidence: float) -> Tensor:
    """Majority class of the teacher's prediction in each cell, ``(B, C, D, H, W)`` to ``(B, N)``.

    A cell in which the teacher's mean confidence (its largest probability) is under ``confidence``
    is -1.
    """
    sure, winner = teacher_probabilities.max(dim=1)
    return _majority(winner, sure, teacher_probabilities.shape[1], grid, confidence)


def pseudo_label_cells_from_log_probabilities(
    teacher_log_p: Tensor, grid: Grid, confidence: float
) -> Tensor:
    """``pseudo_label_cells`` of ``(B, C, D, H, W)`` log-probabilities."""
    log_sure, winner = teacher_log_p.max(dim=1)
    return _majority(winner, log_sure.exp(), teacher_log_p.shape[1], grid, confidence)


def _majority(winner: Tensor, sure: Tensor, classes: int, grid: Grid, confidence: float) -> Tensor:
    cells = _shares(winner, classes, grid).argmax(dim=1)
    mean_confidence = mean_of_cells(sure[:, None].float(), grid).squeeze(1)
    return cells.masked_fill(mean_confidence < confidence, IGNORED).flatten(1)


def _shares(label: Tensor, classes: int, grid: Grid) -> Tensor:
    """Share of each class in each cell, ``(B, D, H, W)`` to ``(B, C, d, h, w)``.

    A class at a time instead of a one-hot label, which would be as large as the logits.
    """
    shares = [mean_of_cells((label == c)[:, None].float(), grid) for c in range(classes)]
    return torch.cat(shares, dim=1)


def entropy_cells(log_probabilities: Tensor, grid: Grid) -> Tensor:
    """Mean entropy of each cell divided by log C: ``(B, C, D, H, W)`` to ``(B, N)`` in [0, 1]."""
    return mean_entropy_cells(entropy(log_probabilities), log_probabilities.shape[1], grid)


def mean_entropy_cells(entropy: Tensor, classes: int, grid: Grid) -> Tensor:
    """``entropy_cells`` of the entropy ``(B, D, H, W)`` of ``classes`` probabilities in nats."""
    h = entropy / math.log(classes)
    return mean_of_cells(h[:, None].float(), grid).flatten(1).clamp(0.0, 1.0)


def mean_of_cells(values: Tensor, grid: Grid) -> Tensor:
    """Mean over each cell, ``(B, C, D, H, W)`` to ``(B, C, d, h, w)``.

    Where cells do not divide the patch, those at the end reach over its border, at which values are
    repeated. torch's adaptive pooling, which does much the same, is not there on Apple's GPUs.
    """
    (d, h, w), sides = grid, values.shape[2:]
    a, b, c = (-(-side // count) for side, count in zip(sides, grid, strict=True))
    missing = (d * a - sides[0], h * b - sides[1], w * c - sides[2])
    if any(missing):
        pad = (0, missing[2], 0, missing[1], 0, missing[0])
        values = F.pad(values, pad, mode="replicate")
    parts = values.reshape(*values.shape[:2], d, a, h, b, w, c)
    return parts.mean(dim=(3, 5, 7))


def region_cells(
    position: Tensor, extent: Tensor, grid: Grid, regions: tuple[int, int, int]
) -> Tensor:
    """Region of each cell in a grid over the normalized volume, ``(B, N)``.

    Scans of one organ share their structure, so cells of one region show about the same anatomy in
    every scan. Cells outside the volume are -1.

    Parameters
    ----------
    position : (B, 3), center of each patch, 0 to 1 along each axis of its volume
    extent : (B, 3), size of each patch in the same unit, negative along a mirrored axis
    grid : cells (d, h, w) of a patch
    regions : how many regions there are along each axis
    """
    number = torch.zeros((), dtype=torch.long, device=position.device)
    inside = torch.ones((), dtype=torch.bool, device=position.device)
    for axis, (cells, count) in enumerate(zip(grid, regions, strict=True)):
        place = (torch.arange(cells, device=position.device) + 0.5) / cells - 0.5
        at = position[:, axis, None] + place * extent[:, axis, None]  # (B, cells)
        view = [len(at), *(cells if a == axis else 1 for a in range(3))]
        number = number * count + (at * count).floor().long().view(view)
        inside = inside & ((at >= 0) & (at < 1)).view(view)
    return torch.where(inside, number, torch.full_like(number, IGNORED)).flatten(1)
