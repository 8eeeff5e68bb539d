"""Unlabeled scans that have a say as well, with what was predicted in them.

A few labeled scans are far from most others; unlabeled ones lie in between. What networks and
labeled scans say of some of these (``atlas.py``) is deformed on into the scan to predict, and
errors that differ from one to the other cancel out: multiple automatically generated templates
(Pipitone et al., "Multi-atlas segmentation of the whole hippocampus and subfields using multiple
automatically generated templates", NeuroImage 2014). They are predicted once for the weights of a
run and kept with it. No label of an unlabeled case is read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from napari_dycon.core.containment import inside
from napari_dycon.engine.atlas.segmentation import can_agree, is_sound, read_voters
from napari_dycon.engine.checkpoints.checkpoint import Model
from napari_dycon.engine.data.patches import LabeledCase
from napari_dycon.engine.data.preprocessing import (
    cache_path,
    prepare_image,
    read_image_array,
    save_array,
)
from napari_dycon.engine.data.splits import read_groups
from napari_dycon.engine.device import free_memory, is_out_of_memory, one_thread
from napari_dycon.engine.inference.predict import CPU, MOST_VOTED, members_on_grid, votes_on_grid
from napari_dycon.engine.inference.progress import PredictionProgress
from napari_dycon.engine.inference.uncertainty import uncertainty_maps
from napari_dycon.engine.memory import with_less_memory
from napari_dycon.errors import DyconError
from napari_dycon.project.runs.events import Event

if TYPE_CHECKING:
    from napari_dycon.project.runs.run import Run
    from napari_dycon.project.store import Project

Array = npt.NDArray[Any]

MOST_REFUSED = 2  # scans without a vote, after which no other is tried
KEPT = 3600.0  # seconds that templates of earlier weights are kept


def _can_agree(voters: Sequence[LabeledCase], device: torch.device) -> bool:
    """Whether labeled scans can have a say, as far as memory suffices to find out."""
    if voters and read_image_array(voters[0].image)[0].size > MOST_VOTED:
        return True  # scans as large as this get no vote, smaller ones still may

    def compare(where: torch.device) -> bool:
        with one_thread(where):
            return can_agree(voters, where)

    try:
        return with_less_memory(compare, dict.fromkeys((device, CPU)), device)
    except MemoryError:
        return False


def with_voters(
    project: Project,
    run: Run,
    model: Model,
    device: torch.device,
    dtype: torch.dtype,
    tell: Callable[[Event], None],
    *,
    progress: PredictionProgress | None = None,
) -> Model:
    """The model of a run, with the scans that have a say in its predictions.

    ``tell`` is given an event for each unlabeled one that is predicted for it, the first time; in
    a project that is only shown, none is. Those that cannot be read, or that memory does not
    suffice for, are left out. ``progress`` counts those to predict, and is told before each.
    """
    voters = read_voters(project, run, model.config)
    if not _can_agree(voters, device):
        return model
    model = dataclasses.replace(model, voters=(voters,))
    groups = read_groups(run.state_folder)
    if not model.voters[0] or groups is None or not model.config.templates:
        return model
    order = np.random.default_rng(model.config.seed).permutation(len(groups.unlabeled))
    chosen = [groups.unlabeled[number] for number in order[: model.config.templates]]
    folder = _folder(run, model)
    classes = len(model.class_values) + 1
    candidates: dict[str, LabeledCase] = {}
    for case in chosen:
        with contextlib.suppress(DyconError, OSError):  # moved away
            image = cache_path(project.cache_folder, case, project.image_paths(case), model.config)
            candidates[case] = LabeledCase(case, image, folder / image.name)
    missing = {case for case, template in candidates.items() if not is_sound(template, classes)}
    if project.read_only_reason:
        candidates = {case: one for case, one in candidates.items() if case not in missing}
        missing = set()
    if progress is not None:
        progress.add(len(missing))
    found, refused = [], 0
    for case, template in candidates.items():
        if case in missing:
            if refused == MOST_REFUSED:
                if progress is not None:
                    progress.add(-1)
                continue
            if progress is not None:
                tell(progress.start(case))
            made = _make_template(project, model, template, device, dtype)
            if progress is not None:
                progress.finish()
            refused += made is None
            if not made:
                continue
            number = chosen.index(case) + 1
            tell({"event": "templates", "case": case, "done": number, "total": len(chosen)})
        found.append(template)
    return dataclasses.replace(model, voters=(*model.voters, tuple(found)))


def _make_template(
    project: Project,
    model: Model,
    template: LabeledCase,
    device: torch.device,
    dtype: torch.dtype,
) -> bool | None:
    """Predict a template and write it down.

    Returns
    -------
    whether that was possible; ``None`` where the labeled scans do not agree on it
    """
    try:
        prepared = prepare_image(project.read_image(template.id), model.config)
        label = _predicted(model, prepared, device, dtype)
        if label is None:
            return None
        save_array(template.image, prepared)
        save_array(template.label, label)
    except (DyconError, OSError):  # moved away, or no room for it
        return False
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        free_memory(device)
        return False
    return True


def _predicted(
    model: Model, image: Array, device: torch.device, dtype: torch.dtype
) -> npt.NDArray[np.uint8] | None:
    """Number of the class (D, H, W) that networks and voters see in a prepared scan."""
    shape = image.shape[1:]
    votes = votes_on_grid(model, image, shape, device)
    if votes is None:
        return None
    members = members_on_grid(model, image, shape, device, dtype, quick=False)
    mean, *_ = uncertainty_maps(members, votes, model.config.atlas_weight)
    return mean.argmax(dim=0).numpy().astype(np.uint8)


def _folder(run: Run, model: Model) -> Path:
    """Where the templates of a model's weights lie; those of earlier weights are removed.

    Another process may predict with these still, so that they are kept for a while.
    """
    digest = hashlib.sha256(f"{model.temperature} {model.window_side}".encode())
    for network in (model.student, model.teacher):
        for parameter in network.parameters():
            digest.update(parameter.detach().cpu().numpy().tobytes())
    folder = run.state_folder / f"templates-{digest.hexdigest()[:16]}"
    for other in run.state_folder.glob("templates-*"):
        with contextlib.suppress(OSError):
            if other != folder and time.time() - other.stat().st_mtime > KEPT:
                shutil.rmtree(other, ignore_errors=True)
    return inside(run.state_folder, folder)
