"""Scans with labels that have a say when another scan is predicted.

A few of them, those that look most like the scan, are deformed into it (``registration.py``), and
what their labels say there is fused (``fusion.py``): multi-atlas segmentation, which errs in other
places than a network does. The mean of both is right more often than either, and knows better how
sure it is (benchmarks/RESULTS.md). Only labels that the run learned from take part, those predicted
in unlabeled scans (``templates.py``), and never that of the scan itself.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_dycon.engine.atlas.label_fusion import shares_of
from napari_dycon.engine.atlas.pseudo_labels import LEAST_DICE, VOTERS, alike, stands_out
from napari_dycon.engine.atlas.registered_cases import deform, on_canvas
from napari_dycon.engine.atlas.registration import Shape, canvas_shape, likeness_to, register
from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.data.patches import LabeledCase
from napari_dycon.engine.data.preprocessing import (
    cache_path,
    prepare_image,
    read_image_array,
    read_label_array,
    save_array,
)
from napari_dycon.engine.data.splits import frozen_label, read_groups
from napari_dycon.engine.device import sampling_device
from napari_dycon.engine.losses.segmentation import UNANNOTATED
from napari_dycon.errors import DyconError

if TYPE_CHECKING:
    from napari_dycon.project.runs.run import Run
    from napari_dycon.project.store import Project

Array = npt.NDArray[Any]

SAME = 0.02  # deviations by which a scan differs at most from itself, prepared another time
STEP = 8  # of which every so many slices are compared
MOST_KEPT = 256  # scans on a canvas that are kept for the next scan, 50 kB a channel


def read_voters(project: Project, run: Run, config: TrainConfig) -> tuple[LabeledCase, ...]:
    """Labeled scans that a run learned from, as far as they and their labels are still there."""
    groups = read_groups(run.state_folder)
    if groups is None or not config.atlas_weight:
        return ()
    found = []
    for case in groups.labeled:
        label = frozen_label(run.state_folder, case)
        if label.exists():
            with contextlib.suppress(DyconError, OSError):  # moved away, or no room for the cache
                image = cache_path(project.cache_folder, case, project.image_paths(case), config)
                if not image.exists():
                    save_array(image, prepare_image(project.read_image(case), config))
                voter = LabeledCase(case, image, label)
                found += [voter] if is_sound(voter, len(groups.class_values) + 1) else []
    return tuple(found)


def is_sound(voter: LabeledCase, classes: int) -> bool:
    """Whether scan and label can be read, are of one shape, and the label has known values."""
    try:
        image, label = read_image_array(voter.image), read_label_array(voter.label)
    except (DyconError, OSError):
        return False
    known = np.isin(np.unique(label), [*range(classes), UNANNOTATED])
    return label.shape == image.shape[1:] and bool(known.all())


def can_agree(voters: Sequence[LabeledCase], device: torch.device) -> bool:
    """Whether labels deformed into another scan can overlap at all, from one of the voters.

    Where structures lie anywhere, as lesions do, no scan would get a vote, and every scan would pay
    for the attempt.
    """
    if len(voters) < 2:
        return True
    target = voters[0]
    image = read_image_array(target.image)
    others = [v for v in voters[1 : VOTERS + 1] if len(read_image_array(v.image)) == len(image)]
    if not others:
        return True
    deformed = _deform_into(np.asarray(image), others, device)
    labels = [label for _, label in deformed]
    drawn = torch.from_numpy(np.array(read_label_array(target.label))).to(labels[0].device)
    return alike([drawn, *labels], least=LEAST_DICE / 2)


def vote_on(
    image: Array, voters: Sequence[Sequence[LabeledCase]], classes: int, device: torch.device
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
    device = sampling_device(device)
    chosen = [
        _most_alike(image, group, device)
        for group in ([v for v in group if _is_another(v, image)] for group in voters)
    ]
    if not chosen or not chosen[0]:
        return None
    together = [voter for group in chosen for voter in group]
    deformed = _deform_into(image, together, device)
    images, labels = [list(part) for part in zip(*deformed, strict=True)]
    drawn = labels[: len(chosen[0])]
    if not alike(drawn):
        return None
    if len(drawn) == 1:
        said = shares_of(image, images[:1], drawn, classes, device=device).argmax(dim=0)
        found = said.to(torch.uint8).cpu().numpy()
        if not stands_out(image, found, images[0].cpu().numpy(), drawn[0].cpu().numpy()):
            return None
    return shares_of(image, images, labels, classes, device=device)


def _most_alike(
    image: Array, voters: Sequence[LabeledCase], device: torch.device
) -> list[LabeledCase]:
    """The voters that look most like a scan."""
    if len(voters) <= VOTERS:
        return list(voters)
    canvas = canvas_shape([image.shape[1:]])
    likeness = likeness_to(on_canvas(image, canvas, device)[None])
    small = (_small(voter.image, canvas)[None].to(device) for voter in voters)
    found = torch.stack([likeness(other) for other in small]).tolist()
    order = sorted(range(len(voters)), key=lambda number: -found[number])
    return [voters[number] for number in order[:VOTERS]]


def _deform_into(
    image: Array, voters: Sequence[LabeledCase], device: torch.device
) -> list[tuple[Tensor, Tensor]]:
    """Scans and labels of voters, deformed into a scan, on the device."""
    device = sampling_device(device)
    canvas = canvas_shape([image.shape[1:]])
    fixed = on_canvas(image, canvas, device)[None]
    moving = torch.stack([_small(voter.image, canvas) for voter in voters]).to(device)
    fields = register(moving, fixed.expand(len(voters), -1, -1, -1, -1).contiguous())
    return [
        deform(voter, fields[number : number + 1], image.shape[1:])
        for number, voter in enumerate(voters)
    ]


@functools.lru_cache(maxsize=MOST_KEPT)
def _small(path: Path, canvas: Shape) -> Tensor:
    """A prepared scan on a canvas; its file's name says what is in it."""
    return on_canvas(read_image_array(path), canvas)


def _is_another(voter: LabeledCase, image: Array) -> bool:
    """Whether a voter can be asked about a scan: of as many channels, and not the scan itself.

    A scan may come with another name, or from another folder, than in the project.
    """
    other = read_image_array(voter.image)
    if len(other) != len(image):
        return False
    if other.shape != image.shape:
        return True
    return float(np.abs(other[:, ::STEP] - image[:, ::STEP]).max()) > SAME
