"""Registered cases and atlas pseudo-labels, built before training starts.

Both are optional: where they cannot be built, the run continues without them. Their files are large
and removed when the run ends; a record is kept so that a resumed run is trained on the same cases.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BeforeValidator, Field, StrictInt, TypeAdapter

from napari_dycon.core.atomic import ensure_dir, write_json
from napari_dycon.core.types import UNANNOTATED
from napari_dycon.core.untrusted import read_json
from napari_dycon.engine.atlas.pseudo_labels import (
    MAX_ATLASES,
    PseudoLabel,
    can_propagate_labels,
    fuse_pseudo_label,
    group_by_target,
    select_most_confident,
)
from napari_dycon.engine.atlas.registered_cases import RegistrationPair, plan_pairs, register_pairs
from napari_dycon.engine.data.cases import LabeledCase
from napari_dycon.engine.data.preparation import TrainingData, has_foreground
from napari_dycon.engine.data.preprocessing import read_image_array, read_label_array
from napari_dycon.engine.device import is_out_of_memory
from napari_dycon.errors import DyconError, ProjectError
from napari_dycon.project.runs.events import Event, WarningEvent

MAX_RECORD_PAIRS = 10**6  # in a record
PairNumber = Annotated[StrictInt, Field(ge=0, le=MAX_RECORD_PAIRS)]


def _drop_invalid_numbers(values: object) -> object:
    if not isinstance(values, list):
        return values
    return [value for value in values if type(value) is int and value >= 0]


PairNumbers = Annotated[list[PairNumber], BeforeValidator(_drop_invalid_numbers)]


@dataclass(frozen=True)
class RegistrationRecord:
    """Number of registered pairs, and the pairs (from 0) that completed a pseudo-label in use."""

    registered: PairNumber
    pseudo_labeled: PairNumbers


_RECORD = TypeAdapter(RegistrationRecord)


@dataclass(frozen=True)
class _Plan:
    """Pairs to register, and which of them complete the atlases of an unlabeled scan."""

    pairs: list[RegistrationPair]
    fusion_groups: dict[int, list[RegistrationPair]]  # number of the last pair -> its group
    n_atlases: int
    folder: Path


def build_atlas_training_set(
    data: TrainingData,
    folder: Path,
    device: torch.device,
    *,
    is_resumed: bool,
    should_stop: Callable[[], bool],
    seconds_left: Callable[[], float] = lambda: math.inf,
) -> Iterator[Event]:
    """Fill ``data.registered_cases`` and ``data.pseudo_labeled_cases``; yields events.

    Parameters
    ----------
    folder : where files are written
    is_resumed : whether the run was trained on them already; the same cases are restored
    should_stop : called often; a run continues with what exists then
    seconds_left : time for registration, infinite without a limit
    """
    plan = _plan(data, folder)
    record_path = folder.with_suffix(".json")
    previous = _load_record(record_path) if is_resumed else None
    if previous and _reuse_existing(previous, data, plan.pairs, plan.fusion_groups, folder):
        return
    data.registered_cases, data.pseudo_labeled_cases = [], []
    pseudo_labels = yield from _register_and_fuse(
        plan, previous, data, device, should_stop, seconds_left
    )
    selected = (
        select_most_confident(pseudo_labels)
        if plan.n_atlases > 1 and not previous
        else sorted(pseudo_labels)
    )
    data.pseudo_labeled_cases = [pseudo_labels[number].case for number in selected]
    if not previous:
        with contextlib.suppress(ProjectError, OSError):
            write_json(
                record_path, asdict(RegistrationRecord(len(data.registered_cases), selected))
            )


def _plan(data: TrainingData, folder: Path) -> _Plan:
    """Choose the pairs of labeled and unlabeled scans."""
    labeled = [case for case in data.labeled if has_foreground(case)]  # others have no structure
    config = data.config
    uses_pseudo_labels = config.atlas.pseudo_label_fraction > 0 and can_propagate_labels(labeled)
    n_atlases = min(MAX_ATLASES, len(labeled)) if uses_pseudo_labels else 1
    if not uses_pseudo_labels:
        # Each pair costs time, and registered cases are drawn less often the more is labeled.
        fraction = min(1.0, config.atlas.registration_augmentation_probability(len(labeled)))
        n_pairs = math.ceil(config.atlas.max_registration_pairs * fraction)
        config = config.with_changes(**{"atlas.max_registration_pairs": n_pairs})
    pairs = plan_pairs(labeled, data.unlabeled, config, folder, n_atlases)
    fusion_groups = (
        {pairs.index(g[-1]): g for g in group_by_target(pairs, n_atlases)}
        if uses_pseudo_labels
        else {}
    )
    return _Plan(pairs, fusion_groups, n_atlases, folder)


def _register_and_fuse(
    plan: _Plan,
    previous: RegistrationRecord | None,
    data: TrainingData,
    device: torch.device,
    should_stop: Callable[[], bool],
    seconds_left: Callable[[], float],
) -> Generator[Event, None, dict[int, PseudoLabel]]:
    """Fill ``data.registered_cases``; yields events, returns pseudo-labels by number of a pair."""
    pseudo_labels: dict[int, PseudoLabel] = {}
    cases = data.registered_cases
    try:
        shutil.rmtree(plan.folder, ignore_errors=True)
        ensure_dir(plan.folder, existing_root=plan.folder.parent)
        if previous and not previous.registered:
            return pseudo_labels
        for event in register_pairs(
            plan.pairs, device, should_stop=should_stop, seconds_left=seconds_left
        ):
            number = len(cases)
            cases.append(plan.pairs[number].registered)
            if number in plan.fusion_groups and (not previous or number in previous.pseudo_labeled):
                pseudo_label = _fuse(plan, number, device, should_stop)
                if pseudo_label:
                    pseudo_labels[number] = pseudo_label
            yield event
            if (previous and len(cases) == previous.registered) or should_stop():
                break
    except (ProjectError, OSError, RuntimeError, MemoryError) as error:  # a full disk, for instance
        if not isinstance(error, (ProjectError, OSError)) and not is_out_of_memory(error):
            raise
        reason = "memory ran out." if is_out_of_memory(error) else str(error)
        yield WarningEvent(
            message=f"Not all labeled scans could be registered to unlabeled ones: {reason}"
        )
    return pseudo_labels


def _fuse(
    plan: _Plan, number: int, device: torch.device, should_stop: Callable[[], bool]
) -> PseudoLabel | None:
    """Fuse the atlases of a scan; ``None`` if they do not agree or memory ran out."""
    try:
        return fuse_pseudo_label(
            plan.fusion_groups[number], _pseudo_label_path(plan.folder, number), should_stop, device
        )
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None


def _reuse_existing(
    record: RegistrationRecord,
    data: TrainingData,
    pairs: list[RegistrationPair],
    fusion_groups: dict[int, list[RegistrationPair]],
    folder: Path,
) -> bool:
    """Fill ``data`` from existing files; return false if one is missing or does not fit."""
    if record.registered > len(pairs) or not set(record.pseudo_labeled) <= set(fusion_groups):
        return False
    registered_cases = [pair.registered for pair in pairs[: record.registered]]
    scans = [(number, fusion_groups[number][0].unlabeled) for number in record.pseudo_labeled]
    pseudo_labeled_cases = [
        LabeledCase(f"{s.id}-pseudo", s.image, _pseudo_label_path(folder, number))
        for number, s in scans
    ]
    if not all(
        _matches_run(case, len(data.class_values))
        for case in (*registered_cases, *pseudo_labeled_cases)
    ):
        return False
    data.registered_cases, data.pseudo_labeled_cases = registered_cases, pseudo_labeled_cases
    return True


def _matches_run(case: LabeledCase, n_structures: int) -> bool:
    """Check that scan and label of a case are readable and fit the run's classes."""
    try:
        label = read_label_array(case.label, mapped=False)
        shape = read_image_array(case.image).shape[1:]
    except (DyconError, OSError, ValueError):
        return False
    return label.shape == shape and label[label != UNANNOTATED].max(initial=0) <= n_structures


def _pseudo_label_path(folder: Path, number: int) -> Path:
    """Return the path of the pseudo-label that the pair with this number completes."""
    return folder / f"{number:04d}.pseudo.npy"


def _load_record(path: Path) -> RegistrationRecord | None:
    """Read the record of a run; ``None`` if it is missing or invalid."""
    try:
        record = _RECORD.validate_python(read_json(path))
    except (OSError, ValueError):
        return None
    pseudo_labeled = [number for number in record.pseudo_labeled if number < record.registered]
    return RegistrationRecord(record.registered, pseudo_labeled)
