"""Scans with labels that have a say when another scan is predicted.

A few of them, those that look most like the scan, are deformed into it (``registration.py``), and
what their labels say there is fused (``fusion.py``): multi-atlas segmentation, which errs in other
places than a network does. The mean of both is right more often than either, and knows better how
sure it is (docs/benchmarks.md). Only labels that the run learned from take part, those predicted
in unlabeled scans (``templates.py``), and never that of the scan itself.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from napari_dycon.core.types import UNANNOTATED, Array
from napari_dycon.engine.atlas.label_fusion import label_probabilities
from napari_dycon.engine.atlas.pseudo_labels import (
    MAX_ATLASES,
    MIN_PAIRWISE_DICE,
    atlases_agree,
    has_matching_contrast,
)
from napari_dycon.engine.atlas.registered_cases import resize_to_grid, warp_case
from napari_dycon.engine.atlas.registration import (
    Shape,
    build_local_ncc,
    register,
    registration_shape,
)
from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.data.cases import LabeledCase
from napari_dycon.engine.data.preprocessing import (
    cache_path,
    prepare_image,
    read_image_array,
    read_label_array,
    save_array,
)
from napari_dycon.engine.data.splits import label_snapshot_path, load_case_split
from napari_dycon.engine.device import choose_sampling_device
from napari_dycon.errors import DyconError

if TYPE_CHECKING:
    from napari_dycon.project.runs.run import Run
    from napari_dycon.project.store import Project


SAME_SCAN_TOLERANCE = (
    0.02  # deviations by which a scan differs at most from itself, prepared another time
)
SLICE_STRIDE = 8  # of which every so many slices are compared
MAX_ATLASES_IN_MEMORY = 256  # scans on a canvas that are kept for the next scan, 50 kB a channel


def load_atlases(project: Project, run: Run, config: TrainConfig) -> tuple[LabeledCase, ...]:
    """Labeled scans that a run learned from, as far as they and their labels are still there."""
    split = load_case_split(run.state_folder)
    if split is None or not config.atlas.weight:
        return ()
    atlases = []
    for case in split.labeled:
        label = label_snapshot_path(run.state_folder, case)
        if label.exists():
            with contextlib.suppress(DyconError, OSError):  # moved away, or no room for the cache
                image = cache_path(project.cache_folder, case, project.image_paths(case), config)
                if not image.exists():
                    save_array(image, prepare_image(project.read_image(case), config))
                atlas = LabeledCase(case, image, label)
                atlases += [atlas] if is_valid_atlas(atlas, len(split.class_values) + 1) else []
    return tuple(atlases)


def is_valid_atlas(atlas: LabeledCase, n_classes: int) -> bool:
    """Whether scan and label can be read, are of one shape, and the label has known values."""
    try:
        image, label = read_image_array(atlas.image), read_label_array(atlas.label)
    except (DyconError, OSError):
        return False
    is_known_value = np.isin(np.unique(label), [*range(n_classes), UNANNOTATED])
    return label.shape == image.shape[1:] and bool(is_known_value.all())


def can_atlases_agree(atlases: Sequence[LabeledCase], device: torch.device) -> bool:
    """Whether labels deformed into another scan can overlap at all, from one of the voters.

    Where structures lie anywhere, as lesions do, no scan would get a vote, and every scan would pay
    for the attempt.
    """
    if len(atlases) < 2:
        return True
    target = atlases[0]
    image = read_image_array(target.image)
    others = [
        v for v in atlases[1 : MAX_ATLASES + 1] if len(read_image_array(v.image)) == len(image)
    ]
    if not others:
        return True
    registered = _register_atlases(np.asarray(image), others, device)
    labels = [label for _, label in registered]
    target_label = torch.from_numpy(np.array(read_label_array(target.label))).to(labels[0].device)
    return atlases_agree([target_label, *labels], min_dice=MIN_PAIRWISE_DICE / 2)


def segment_with_atlases(
    image: Array,
    atlas_groups: Sequence[Sequence[LabeledCase]],
    n_classes: int,
    device: torch.device,
) -> Tensor | None:
    """What scans with labels say of a scan; ``None`` where they do not see the same in it.

    Parameters
    ----------
    image : (C, D, H, W), prepared
    voters : groups of them, those that a person labeled first, who decide whether there is a vote;
        of each group the ``votes.VOTERS`` most like the scan are asked, never the scan itself

    Returns
    -------
    (classes, D, H, W) on the device, but on the CPU in place of Apple's GPUs; sums of 1
    """
    device = choose_sampling_device(device)
    selected_groups = [
        _select_similar_atlases(image, group, device)
        for group in ([v for v in group if _is_different_scan(v, image)] for group in atlas_groups)
    ]
    if not selected_groups or not selected_groups[0]:
        return None
    atlases = [atlas for group in selected_groups for atlas in group]
    registered = _register_atlases(image, atlases, device)
    images, labels = [list(part) for part in zip(*registered, strict=True)]
    manual_labels = labels[: len(selected_groups[0])]
    if not atlases_agree(manual_labels):
        return None
    if len(manual_labels) == 1:
        fused = label_probabilities(
            image, images[:1], manual_labels, n_classes, device=device
        ).argmax(dim=0)
        fused_label = fused.to(torch.uint8).cpu().numpy()
        if not has_matching_contrast(
            image, fused_label, images[0].cpu().numpy(), manual_labels[0].cpu().numpy()
        ):
            return None
    return label_probabilities(image, images, labels, n_classes, device=device)


def _select_similar_atlases(
    image: Array, atlases: Sequence[LabeledCase], device: torch.device
) -> list[LabeledCase]:
    """The voters that look most like a scan."""
    if len(atlases) <= MAX_ATLASES:
        return list(atlases)
    grid = registration_shape([image.shape[1:]])
    local_ncc = build_local_ncc(resize_to_grid(image, grid, device)[None])
    downsampled = (_downsample(atlas.image, grid)[None].to(device) for atlas in atlases)
    similarities = torch.stack([local_ncc(other) for other in downsampled]).tolist()
    order = sorted(range(len(atlases)), key=lambda number: -similarities[number])
    return [atlases[number] for number in order[:MAX_ATLASES]]


def _register_atlases(
    image: Array, atlases: Sequence[LabeledCase], device: torch.device
) -> list[tuple[Tensor, Tensor]]:
    """Scans and labels of voters, deformed into a scan, on the device."""
    device = choose_sampling_device(device)
    grid = registration_shape([image.shape[1:]])
    fixed = resize_to_grid(image, grid, device)[None]
    moving = torch.stack([_downsample(atlas.image, grid) for atlas in atlases]).to(device)
    fields = register(moving, fixed.expand(len(atlases), -1, -1, -1, -1).contiguous())
    return [
        warp_case(atlas, fields[number : number + 1], image.shape[1:])
        for number, atlas in enumerate(atlases)
    ]


@functools.lru_cache(maxsize=MAX_ATLASES_IN_MEMORY)
def _downsample(path: Path, grid: Shape) -> Tensor:
    """A prepared scan on a canvas; its file's name says what is in it."""
    return resize_to_grid(read_image_array(path), grid)


def _is_different_scan(atlas: LabeledCase, image: Array) -> bool:
    """Whether a atlas can be asked about a scan: of as many channels, and not the scan itself.

    A scan may come with another name, or from another folder, than in the project.
    """
    other = read_image_array(atlas.image)
    if len(other) != len(image):
        return False
    if other.shape != image.shape:
        return True
    return (
        float(np.abs(other[:, ::SLICE_STRIDE] - image[:, ::SLICE_STRIDE]).max())
        > SAME_SCAN_TOLERANCE
    )
