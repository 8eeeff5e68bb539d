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
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from napari_dycon.core.containment import ensure_within
from napari_dycon.core.types import Array
from napari_dycon.engine.atlas.segmentation import can_atlases_agree, is_valid_atlas, load_atlases
from napari_dycon.engine.checkpoints.model_file import TrainedModel
from napari_dycon.engine.data.cases import LabeledCase
from napari_dycon.engine.data.preprocessing import (
    cache_path,
    prepare_image,
    read_image_array,
    save_array,
)
from napari_dycon.engine.data.splits import load_case_split
from napari_dycon.engine.device import empty_cache, is_out_of_memory, use_single_thread
from napari_dycon.engine.inference.predict import (
    CPU,
    MAX_ATLAS_VOXELS,
    predict_members,
    predict_with_atlases,
)
from napari_dycon.engine.inference.progress import PredictionProgress
from napari_dycon.engine.inference.uncertainty import compute_uncertainty_maps
from napari_dycon.engine.memory import retry_with_less_memory
from napari_dycon.errors import DyconError
from napari_dycon.project.runs.events import Event, TemplatesEvent

if TYPE_CHECKING:
    from napari_dycon.project.runs.run import Run
    from napari_dycon.project.store import Project


MAX_REJECTED = 2  # scans without a vote, after which no other is tried
MAX_TEMPLATE_AGE_S = 3600.0  # seconds that templates of earlier weights are kept


def _can_atlases_agree(atlases: Sequence[LabeledCase], device: torch.device) -> bool:
    """Whether labeled scans can have a say, as far as memory suffices to find out."""
    if atlases and read_image_array(atlases[0].image)[0].size > MAX_ATLAS_VOXELS:
        return True  # scans as large as this get no vote, smaller ones still may

    def compare(compute_device: torch.device) -> bool:
        with use_single_thread(compute_device):
            return can_atlases_agree(atlases, compute_device)

    try:
        return retry_with_less_memory(compare, dict.fromkeys((device, CPU)), device)
    except MemoryError:
        return False


def attach_atlases(
    project: Project,
    run: Run,
    model: TrainedModel,
    device: torch.device,
    dtype: torch.dtype,
    on_event: Callable[[Event], None],
    *,
    progress: PredictionProgress | None = None,
) -> TrainedModel:
    """The model of a run, with the scans that have a say in its predictions.

    ``tell`` is given an event for each unlabeled one that is predicted for it, the first time; in
    a project that is only shown, none is. Those that cannot be read, or that memory does not
    suffice for, are left out. ``progress`` counts those to predict, and is told before each.
    """
    atlases = load_atlases(project, run, model.config)
    if not _can_atlases_agree(atlases, device):
        return model
    model = dataclasses.replace(model, atlases=(atlases,))
    split = load_case_split(run.state_folder)
    if not model.atlases[0] or split is None or not model.config.atlas.templates:
        return model
    order = np.random.default_rng(model.config.seed).permutation(len(split.unlabeled))
    chosen = [split.unlabeled[number] for number in order[: model.config.atlas.templates]]
    folder = _prepare_folder(run, model)
    n_classes = len(model.class_values) + 1
    candidates: dict[str, LabeledCase] = {}
    for case in chosen:
        with contextlib.suppress(DyconError, OSError):  # moved away
            image = cache_path(project.cache_folder, case, project.image_paths(case), model.config)
            candidates[case] = LabeledCase(case, image, folder / image.name)
    missing = {
        case for case, template in candidates.items() if not is_valid_atlas(template, n_classes)
    }
    if project.read_only_reason:
        candidates = {case: one for case, one in candidates.items() if case not in missing}
        missing = set()
    if progress is not None:
        progress.add(len(missing))
    templates, n_rejected = [], 0
    for case, template in candidates.items():
        if case in missing:
            if n_rejected == MAX_REJECTED:
                if progress is not None:
                    progress.add(-1)
                continue
            if progress is not None:
                on_event(progress.start(case))
            is_written = _make_template(project, model, template, device, dtype)
            if progress is not None:
                progress.finish()
            n_rejected += is_written is None
            if not is_written:
                continue
            number = chosen.index(case) + 1
            on_event(TemplatesEvent(case=case, done=number, total=len(chosen)))
        templates.append(template)
    return dataclasses.replace(model, atlases=(*model.atlases, tuple(templates)))


def _make_template(
    project: Project,
    model: TrainedModel,
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
        label = _predict_template(model, prepared, device, dtype)
        if label is None:
            return None
        save_array(template.image, prepared)
        save_array(template.label, label)
    except (DyconError, OSError):  # moved away, or no room for it
        return False
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        empty_cache(device)
        return False
    return True


def _predict_template(
    model: TrainedModel, image: Array, device: torch.device, dtype: torch.dtype
) -> npt.NDArray[np.uint8] | None:
    """Number of the class (D, H, W) that networks and voters see in a prepared scan."""
    shape = image.shape[1:]
    atlas_probabilities = predict_with_atlases(model, image, shape, device)
    if atlas_probabilities is None:
        return None
    members = predict_members(model, image, shape, device, dtype, fast=False)
    mean, *_ = compute_uncertainty_maps(members, atlas_probabilities, model.config.atlas.weight)
    return mean.argmax(dim=0).numpy().astype(np.uint8)


def _prepare_folder(run: Run, model: TrainedModel) -> Path:
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
            if other != folder and time.time() - other.stat().st_mtime > MAX_TEMPLATE_AGE_S:
                shutil.rmtree(other, ignore_errors=True)
    return ensure_within(run.state_folder, folder)
