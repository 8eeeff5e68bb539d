"""Automatically generated templates: unlabeled scans with predicted labels as further atlases.

A few labeled scans differ much from most others; unlabeled scans bridge the gap. Predictions of
some unlabeled scans are propagated to the scan to predict, and independent errors cancel out
(Pipitone et al., "Multi-atlas segmentation of the whole hippocampus and subfields using multiple
automatically generated templates", NeuroImage 2014). Templates are predicted once for the weights
of a run and stored with it. No label of an unlabeled case is read.
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
from napari_dycon.engine.atlas.pseudo_labels import MAX_ATLASES
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
    count_atlases,
    count_member_passes,
    predict_members,
    predict_with_atlases,
)
from napari_dycon.engine.inference.progress import PredictionProgress, measure_work
from napari_dycon.engine.inference.uncertainty import compute_uncertainty_maps
from napari_dycon.engine.memory import retry_with_less_memory
from napari_dycon.errors import DyconError
from napari_dycon.project.runs.events import Event, TemplatesEvent

if TYPE_CHECKING:
    from napari_dycon.project.runs.run import Run
    from napari_dycon.project.store import Project


MAX_REJECTED = 2  # scans on which the atlases disagree, after which no other is tried
MAX_TEMPLATE_AGE_S = 3600.0  # templates of earlier weights are kept this long


def _can_atlases_agree(atlases: Sequence[LabeledCase], device: torch.device) -> bool:
    """Check whether atlases can agree; false if memory does not suffice for the check."""
    if atlases and read_image_array(atlases[0].image)[0].size > MAX_ATLAS_VOXELS:
        return True  # too large for atlas fusion, but smaller scans may still use it

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
    """Add the atlases and templates of a run to its model.

    Templates are predicted on first use, except in a read-only project; ``on_event`` is called
    with an event for each. Scans that cannot be read, or that memory does not suffice for, are left
    out. ``progress`` counts the templates to predict and is updated before each.
    """
    is_followed = progress is not None
    progress = progress or PredictionProgress(0)
    atlases = load_atlases(project, run, model.config)
    candidates, missing = _find_templates(project, run, model) if atlases else ({}, set())
    progress.add(len(missing))
    _plan_work(progress, model, len(atlases), len(candidates))
    progress.set_total(1, "checking")
    progress.start("", "checking")
    with progress.measure("registrations", _count_compared(len(atlases))):
        can_agree = _can_atlases_agree(atlases, device)
    progress.finish()
    if not can_agree:
        progress.add(-len(missing))
        return model
    model = dataclasses.replace(model, atlases=(atlases,))
    if not atlases or not model.config.atlas.templates or load_case_split(run.state_folder) is None:
        return model
    templates, n_rejected, n_ready = [], 0, len(candidates) - len(missing)
    for case, template in candidates.items():
        if case in missing:
            if n_rejected == MAX_REJECTED:
                progress.add(-1)
                continue
            announcement = progress.start(case, "references")
            if is_followed:
                on_event(announcement)
            is_written = _make_template(project, model, template, device, dtype, progress)
            progress.finish()
            n_rejected += is_written is None
            if not is_written:
                continue
            n_ready += 1
            on_event(TemplatesEvent(case=case, done=n_ready, total=len(candidates)))
        templates.append(template)
    return dataclasses.replace(model, atlases=(*model.atlases, tuple(templates)))


def _find_templates(
    project: Project, run: Run, model: TrainedModel
) -> tuple[dict[str, LabeledCase], set[str]]:
    """Return the templates of a run in order, by case, and those that have to be predicted."""
    split = load_case_split(run.state_folder)
    if split is None or not model.config.atlas.templates:
        return {}, set()
    order = np.random.default_rng(model.config.seed).permutation(len(split.unlabeled))
    folder = _prepare_folder(run, model)
    n_classes = len(model.class_values) + 1
    candidates: dict[str, LabeledCase] = {}
    for case in [split.unlabeled[number] for number in order[: model.config.atlas.templates]]:
        with contextlib.suppress(DyconError, OSError):  # moved away
            image = cache_path(project.cache_folder, case, project.image_paths(case), model.config)
            candidates[case] = LabeledCase(case, image, folder / image.name)
    missing = {
        case for case, template in candidates.items() if not is_valid_atlas(template, n_classes)
    }
    if project.read_only_reason:
        return {case: one for case, one in candidates.items() if case not in missing}, set()
    return candidates, missing


def _count_compared(n_atlases: int) -> int:
    """Return how many atlases are registered to another one to check whether they can agree."""
    return min(max(n_atlases - 1, 0), MAX_ATLASES)


def _plan_work(
    progress: PredictionProgress, model: TrainedModel, n_atlases: int, n_templates: int
) -> None:
    """Tell the progress how much work each template and each scan is."""
    passes = count_member_passes(model, fast=False)
    n_compared = _count_compared(n_atlases)
    n_atlases, n_templates = min(n_atlases, MAX_ATLASES), min(n_templates, MAX_ATLASES)
    progress.plan("checking", registrations=n_compared)
    progress.plan("references", passes=passes, atlases=n_atlases)
    progress.plan("predicting", passes=passes, atlases=n_atlases + n_templates)


def _make_template(
    project: Project,
    model: TrainedModel,
    template: LabeledCase,
    device: torch.device,
    dtype: torch.dtype,
    progress: PredictionProgress,
) -> bool | None:
    """Predict a template and write it.

    Returns
    -------
    whether that succeeded; ``None`` if the atlases do not agree on the scan
    """
    try:
        prepared = prepare_image(project.read_image(template.id), model.config)
        label = _predict_template(model, prepared, device, dtype, progress)
        if label is None:
            return None
        save_array(template.image, prepared)
        save_array(template.label, label)
    except (DyconError, OSError):  # moved away, or the disk is full
        return False
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        empty_cache(device)
        return False
    return True


def _predict_template(
    model: TrainedModel,
    image: Array,
    device: torch.device,
    dtype: torch.dtype,
    progress: PredictionProgress,
) -> npt.NDArray[np.uint8] | None:
    """Predict class indices (D, H, W) of a prepared scan with networks and atlases."""
    shape = image.shape[1:]
    with measure_work(progress, "atlases", count_atlases(model)):
        atlas_probabilities = predict_with_atlases(
            model, image, shape, device, on_fraction=progress.report_fraction
        )
    if atlas_probabilities is None:
        return None
    members = predict_members(
        model, image, shape, device, dtype, fast=False, on_fraction=progress.report_fraction
    )
    with measure_work(progress, "passes", count_member_passes(model, fast=False)):
        mean, *_ = compute_uncertainty_maps(members, atlas_probabilities, model.config.atlas.weight)
    return mean.argmax(dim=0).numpy().astype(np.uint8)


def _prepare_folder(run: Run, model: TrainedModel) -> Path:
    """Return the template folder of a model's weights; remove those of earlier weights.

    Another process may still predict with these, so they are kept for a while.
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
