"""Labelled scans that have a say when another scan is predicted.

A few of them, those that look most like the scan, are deformed into it (``registration.py``), and
what their labels say there is fused (``fusion.py``): multi-atlas segmentation, which errs in other
places than a network does. The mean of both is right more often than either, and knows better how
sure it is (benchmarks/RESULTS.md). Only labels that the run learnt from take part, and never that
of the case itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch
from torch import Tensor

from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.fusion import shares_of
from napari_dycon.engine.groups import frozen_label, read_groups
from napari_dycon.engine.patches import LabelledCase
from napari_dycon.engine.preprocess import cache_path, prepare_image, read_image_array, save_array
from napari_dycon.engine.registration import canvas_shape, likeness_to, register
from napari_dycon.engine.votes import VOTERS, alike
from napari_dycon.engine.warps import deform, on_canvas
from napari_dycon.errors import DyconError

if TYPE_CHECKING:
    from napari_dycon.project.runs import Run
    from napari_dycon.project.store import Project

Array = npt.NDArray[Any]


def read_voters(project: Project, run: Run, config: TrainConfig) -> tuple[LabelledCase, ...]:
    """Labelled scans that a run learnt from, as far as they and their labels are still there."""
    groups = read_groups(run.state_folder)
    if groups is None or not config.atlas_weight:
        return ()
    found = []
    for case in groups.labelled:
        label = frozen_label(run.state_folder, case)
        if label.exists():
            with contextlib.suppress(DyconError, OSError):  # moved away, or no room for the cache
                image = cache_path(project.cache_folder, case, project.image_paths(case), config)
                if not image.exists():
                    save_array(image, prepare_image(project.read_image(case), config))
                found.append(LabelledCase(case, image, label))
    return tuple(found)


def vote_on(
    image: Array, voters: Sequence[LabelledCase], classes: int, device: torch.device
) -> Tensor | None:
    """What labelled scans say of a scan; ``None`` where they do not see the same in it.

    Parameters
    ----------
    image : (C, D, H, W), prepared
    voters : those most like the scan are asked, ``votes.VOTERS`` at most

    Returns
    -------
    (classes, D, H, W), sums of 1
    """
    voters = [v for v in voters if len(read_image_array(v.image)) == len(image)]
    if not voters:
        return None
    if device.type == "mps":  # older versions of torch cannot differentiate sampling in 3D there
        device = torch.device("cpu")
    canvas = canvas_shape([image.shape[1:]])
    fixed = on_canvas(image, canvas)[None].to(device)
    small = torch.stack([on_canvas(read_image_array(v.image), canvas) for v in voters]).to(device)
    likeness = likeness_to(fixed)
    order = sorted(range(len(voters)), key=lambda n: -float(likeness(small[n : n + 1])))[:VOTERS]
    found = register(small[order], fixed.expand(len(order), -1, -1, -1, -1).contiguous()).cpu()
    deformed = [
        deform(voters[number], found[place : place + 1], image.shape[1:])
        for place, number in enumerate(order)
    ]
    images, labels = [scan for scan, _ in deformed], [label for _, label in deformed]
    if not alike(labels):
        return None
    return torch.from_numpy(shares_of(image, images, labels, classes))
