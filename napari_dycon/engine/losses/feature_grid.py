"""Downsampling of labels, pseudo-labels and entropy to the feature map, and its regions.

A patch of ``(D, H, W)`` voxels has a feature map of ``(d, h, w)`` locations,
``N = d h w``.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_dycon.engine.losses.probability import predictive_entropy

IGNORE_INDEX = -1
MIN_ANNOTATED_FRACTION = 0.1  # of a location; with every fifth slice annotated, 1/8 of 8 slices
# Pair entries (rows x locations) held at once; above this, the contrastive losses are computed in
# row blocks with recomputation.
PAIR_BUDGET = 2**24
FeatureShape = tuple[int, int, int]  # feature-map locations (d, h, w) of a patch


def downsample_labels(label: Tensor, classes: int, feature_shape: FeatureShape) -> Tensor:
    """Downsample ``(B, D, H, W)`` int64 labels to the majority class of each location, (B, N).

    Only annotated voxels count; a location of which less than ``MIN_ANNOTATED_FRACTION`` is
    annotated is -1.
    """
    fractions = _class_fractions(label, classes, feature_shape)
    labels = fractions.argmax(dim=1)
    labels = labels.masked_fill(fractions.sum(dim=1) < MIN_ANNOTATED_FRACTION, IGNORE_INDEX)
    return labels.flatten(1)


def downsample_pseudo_labels(
    teacher_probabilities: Tensor, feature_shape: FeatureShape, min_confidence: float
) -> Tensor:
    """Downsample teacher probabilities ``(B, C, D, H, W)`` to majority classes ``(B, N)``.

    A location at which the teacher's mean confidence (its largest probability) is below
    ``min_confidence`` is -1.
    """
    confidence, labels = teacher_probabilities.max(dim=1)
    return _select_majority(
        labels, confidence, teacher_probabilities.shape[1], feature_shape, min_confidence
    )


def downsample_pseudo_labels_from_log_p(
    teacher_log_p: Tensor, feature_shape: FeatureShape, min_confidence: float
) -> Tensor:
    """Compute ``downsample_pseudo_labels`` from ``(B, C, D, H, W)`` log-probabilities."""
    log_confidence, labels = teacher_log_p.max(dim=1)
    return _select_majority(
        labels, log_confidence.exp(), teacher_log_p.shape[1], feature_shape, min_confidence
    )


def _select_majority(
    labels: Tensor,
    confidence: Tensor,
    classes: int,
    feature_shape: FeatureShape,
    min_confidence: float,
) -> Tensor:
    majority = _class_fractions(labels, classes, feature_shape).argmax(dim=1)
    mean_confidence = block_mean(confidence[:, None].float(), feature_shape).squeeze(1)
    return majority.masked_fill(mean_confidence < min_confidence, IGNORE_INDEX).flatten(1)


def _class_fractions(label: Tensor, classes: int, feature_shape: FeatureShape) -> Tensor:
    """Compute class fractions at each location, ``(B, D, H, W)`` to ``(B, C, d, h, w)``.

    One class at a time, since a one-hot label would be as large as the logits.
    """
    fractions = [block_mean((label == c)[:, None].float(), feature_shape) for c in range(classes)]
    return torch.cat(fractions, dim=1)


def downsample_entropy_from_log_p(log_probabilities: Tensor, feature_shape: FeatureShape) -> Tensor:
    """Compute mean entropy / log C of locations: ``(B, C, D, H, W)`` to ``(B, N)`` in [0, 1]."""
    return downsample_entropy(
        predictive_entropy(log_probabilities), log_probabilities.shape[1], feature_shape
    )


def downsample_entropy(entropy: Tensor, classes: int, feature_shape: FeatureShape) -> Tensor:
    """Compute ``downsample_entropy_from_log_p`` from the entropy ``(B, D, H, W)`` in nats."""
    h = entropy / math.log(classes)
    return block_mean(h[:, None].float(), feature_shape).flatten(1).clamp(0.0, 1.0)


def block_mean(values: Tensor, feature_shape: FeatureShape) -> Tensor:
    """Compute the mean over each location, ``(B, C, D, H, W)`` to ``(B, C, d, h, w)``.

    If the grid does not divide the patch, the last locations extend past its border, where values
    are repeated. torch's adaptive pooling, which is similar, is not available on Apple GPUs.
    """
    (d, h, w), sides = feature_shape, values.shape[2:]
    a, b, c = (-(-side // count) for side, count in zip(sides, feature_shape, strict=True))
    missing = (d * a - sides[0], h * b - sides[1], w * c - sides[2])
    if any(missing):
        pad = (0, missing[2], 0, missing[1], 0, missing[0])
        values = F.pad(values, pad, mode="replicate")
    blocks = values.reshape(*values.shape[:2], d, a, h, b, w, c)
    return blocks.mean(dim=(3, 5, 7))


def region_indices(
    patch_center: Tensor,
    patch_size: Tensor,
    feature_shape: FeatureShape,
    region_grid: tuple[int, int, int],
) -> Tensor:
    """Compute the region of each location in a grid over the normalized volume, ``(B, N)``.

    Scans of one organ share their structure, so locations of one region show about the same anatomy
    in every scan. Locations outside the volume are -1.

    Parameters
    ----------
    patch_center : (B, 3), center of each patch, 0 to 1 along each axis of its volume
    patch_size : (B, 3), size of each patch in the same unit, negative along a mirrored axis
    feature_shape : locations (d, h, w) of a patch
    region_grid : number of regions along each axis
    """
    index = torch.zeros((), dtype=torch.long, device=patch_center.device)
    is_inside = torch.ones((), dtype=torch.bool, device=patch_center.device)
    for axis, (n_locations, n_regions) in enumerate(zip(feature_shape, region_grid, strict=True)):
        offset = (torch.arange(n_locations, device=patch_center.device) + 0.5) / n_locations - 0.5
        coordinate = patch_center[:, axis, None] + offset * patch_size[:, axis, None]  # (B, n)
        view = [len(coordinate), *(n_locations if a == axis else 1 for a in range(3))]
        index = index * n_regions + (coordinate * n_regions).floor().long().view(view)
        is_inside = is_inside & ((coordinate >= 0) & (coordinate < 1)).view(view)
    return torch.where(is_inside, index, torch.full_like(index, IGNORE_INDEX)).flatten(1)
