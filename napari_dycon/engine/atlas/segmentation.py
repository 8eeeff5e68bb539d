"""Multi-atlas segmentation for fusion at inference.

The labeled scans most similar to a scan are registered to it (``registration.py``) and their labels
are fused (``label_fusion.py``). The errors are largely independent of those of the networks, so
that the mean of both is more accurate and better calibrated than either (docs/benchmarks.md).
Atlases are cases that the run was trained on and templates (``templates.py``), never the scan
itself.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
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


SAME_SCAN_TOLERANCE = 0.02  # largest difference, in deviations, of one scan that was prepared twice
REGISTRATION_SHARE = 0.35  # of the time of a segmentation, measured on the left atrium
SLICE_STRIDE = 8  # every n-th slice is compared
MAX_ATLASES_IN_MEMORY = 256  # downsampled scans to keep, 50 kB per channel each


def load_atlases(project: Project, run: Run, config: TrainConfig) -> tuple[LabeledCase, ...]:
    """Load the labeled scans that a run was trained on, if they and their labels still exist."""
    split = load_case_split(run.state_folder)
    if split is None or not config.atlas.weight:
        return ()
    atlases = []
    for case in split.labeled:
        label = label_snapshot_path(run.state_folder, case)
        if label.exists():
            with contextlib.suppress(DyconError, OSError):  # moved away, or the disk is full
                image = cache_path(project.cache_folder, case, project.image_paths(case), config)
                if not image.exists():
                    save_array(image, prepare_image(project.read_image(case), config))
                atlas = LabeledCase(case, image, label)
                atlases += [atlas] if is_valid_atlas(atlas, len(split.class_values) + 1) else []
    return tuple(atlases)


def is_valid_atlas(atlas: LabeledCase, n_classes: int) -> bool:
    """Check that scan and label are readable, of one shape, and the label has known values."""
    try:
        image, label = read_image_array(atlas.image), read_label_array(atlas.label)
    except (DyconError, OSError):
        return False
    is_known_value = np.isin(np.unique(label), [*range(n_classes), UNANNOTATED])
    return label.shape == image.shape[1:] and bool(is_known_value.all())


def can_atlases_agree(atlases: Sequence[LabeledCase], device: torch.device) -> bool:
    """Check on one of the atlases whether labels registered to another scan can agree.

    Where structures are at arbitrary positions, as lesions are, no scan would get an atlas
    segmentation, and every prediction would spend time on the attempt.
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
    on_fraction: Callable[[float], None] | None = None,
) -> Tensor | None:
    """Segment a scan with atlases; ``None`` if they do not agree.

    Parameters
    ----------
    image : (C, D, H, W), prepared
    atlas_groups : groups of atlases, starting with the labeled cases, whose agreement is required;
        of each group the ``pseudo_labels.MAX_ATLASES`` most similar to the scan are used, never the
        scan itself
    on_fraction : called with the fraction of the work that is done, on the CPU, where the host
        waits for each part

    Returns
    -------
    (classes, D, H, W) on the device, or on the CPU instead of an Apple GPU; sums of 1
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

    def report(fraction: float) -> None:
        if on_fraction is not None and device.type == "cpu":
            on_fraction(REGISTRATION_SHARE + (1.0 - REGISTRATION_SHARE) * fraction)

    report(0.0)
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
    return label_probabilities(image, images, labels, n_classes, device=device, on_fraction=report)


def _select_similar_atlases(
    image: Array, atlases: Sequence[LabeledCase], device: torch.device
) -> list[LabeledCase]:
    """Select the atlases most similar to a scan."""
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
    """Register atlases to a scan; return their warped images and labels on the device."""
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
    """Resize a prepared scan to the registration grid; cached by path, which includes a digest."""
    return resize_to_grid(read_image_array(path), grid)


def _is_different_scan(atlas: LabeledCase, image: Array) -> bool:
    """Check that an atlas has as many channels as a scan, and is not the scan itself.

    The scan may have another name, or be in another folder, than in the project.
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
