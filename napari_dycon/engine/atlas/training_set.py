"""What a run borrows from unlabeled scans before it starts: deformed labeled scans, and votes.

Both are extras: where they cannot be made, the run goes on without them. Their files are large and
removed when the run ends; which there were is kept, so that a resumed run learns from the same.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from napari_dycon.core.atomic import ensure_dir, write_json
from napari_dycon.core.types import UNANNOTATED
from napari_dycon.core.untrusted import parse_integer, read_json
from napari_dycon.engine.atlas.pseudo_labels import (
    MAX_ATLASES,
    PseudoLabel,
    can_propagate_labels,
    fuse_pseudo_label,
    group_by_target,
    select_most_confident,
)
from napari_dycon.engine.atlas.registered_cases import RegistrationPair, plan_pairs, register_pairs
from napari_dycon.engine.data.patches import LabeledCase
from napari_dycon.engine.data.preparation import TrainingData, has_foreground
from napari_dycon.engine.data.preprocessing import read_image_array, read_label_array
from napari_dycon.engine.device import is_out_of_memory
from napari_dycon.errors import DyconError, ProjectError
from napari_dycon.project.runs.events import Event

MAX_RECORD_PAIRS = 10**6  # pairs that a record may speak of


@dataclass(frozen=True)
class RegistrationRecord:
    """How many pairs a run made, and after which of them (from 0) a vote was taken and used."""

    registered: int
    pseudo_labeled: list[int]


def build_atlas_training_set(
    data: TrainingData,
    folder: Path,
    device: torch.device,
    *,
    is_resumed: bool,
    should_stop: Callable[[], bool],
) -> Iterator[Event]:
    """Fill ``data.warped`` and ``data.voted``; yields events.

    Parameters
    ----------
    folder : where files are written
    resumed : whether the run has learned from them already; it gets the same again
    enough : asked after each pair and within votes; a run goes on with what was made until then
    """
    labeled = [case for case in data.labeled if has_foreground(case)]  # others lend nothing
    uses_pseudo_labels = data.config.atlas.pseudo_label_fraction > 0 and can_propagate_labels(
        labeled
    )
    n_atlases = min(MAX_ATLASES, len(labeled)) if uses_pseudo_labels else 1
    config = data.config
    if (
        not uses_pseudo_labels
    ):  # each pair costs time, and shapes alone are seen the less the more is labeled
        fraction = min(1.0, config.atlas.registration_augmentation_probability(len(labeled)))
        config = config.with_changes(
            **{
                "atlas.max_registration_pairs": math.ceil(
                    config.atlas.max_registration_pairs * fraction
                )
            }
        )
    pairs = plan_pairs(labeled, data.unlabeled, config, folder, n_atlases)
    fusion_groups = (
        {pairs.index(g[-1]): g for g in group_by_target(pairs, n_atlases)}
        if uses_pseudo_labels
        else {}
    )
    record_path = folder.with_suffix(".json")
    previous = _load_record(record_path) if is_resumed else None
    if previous and _reuse_existing(previous, data, pairs, fusion_groups, folder):
        return
    pseudo_labels: dict[int, PseudoLabel] = {}
    data.registered_cases, data.pseudo_labeled_cases = [], []

    def add_pair(number: int) -> None:
        data.registered_cases.append(pairs[number].registered)
        if number not in fusion_groups or (previous and number not in previous.pseudo_labeled):
            return
        try:
            pseudo_label = fuse_pseudo_label(
                fusion_groups[number], _pseudo_label_path(folder, number), should_stop, device
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            pseudo_label = None
        if pseudo_label:
            pseudo_labels[number] = pseudo_label

    try:
        shutil.rmtree(folder, ignore_errors=True)
        ensure_dir(folder, existing_root=folder.parent)
        for event in register_pairs(pairs, device) if not previous or previous.registered else ():
            add_pair(len(data.registered_cases))
            yield event
            if (previous and len(data.registered_cases) == previous.registered) or should_stop():
                break
    except (ProjectError, OSError, RuntimeError, MemoryError) as error:  # a full disk, for instance
        if not isinstance(error, (ProjectError, OSError)) and not is_out_of_memory(error):
            raise
        reason = "memory ran out." if is_out_of_memory(error) else str(error)
        yield {
            "event": "warning",
            "message": f"Not all shapes of unlabeled scans could be borrowed: {reason}",
        }
    selected = (
        select_most_confident(pseudo_labels)
        if n_atlases > 1 and not previous
        else sorted(pseudo_labels)
    )
    data.pseudo_labeled_cases = [pseudo_labels[number].case for number in selected]
    if not previous:
        with contextlib.suppress(ProjectError, OSError):
            write_json(
                record_path, asdict(RegistrationRecord(len(data.registered_cases), selected))
            )


def _reuse_existing(
    record: RegistrationRecord,
    data: TrainingData,
    pairs: list[RegistrationPair],
    fusion_groups: dict[int, list[RegistrationPair]],
    folder: Path,
) -> bool:
    """Fill ``data`` from files that lie there already; false where one is missing or unfit."""
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
    """Whether scan and label of a case can be read and learned from."""
    try:
        label = read_label_array(case.label, mapped=False)
        shape = read_image_array(case.image).shape[1:]
    except (DyconError, OSError, ValueError):
        return False
    return label.shape == shape and label[label != UNANNOTATED].max(initial=0) <= n_structures


def _pseudo_label_path(folder: Path, number: int) -> Path:
    """Where the vote of the scan whose last voter has this number lies."""
    return folder / f"{number:04d}.pseudo.npy"


def _load_record(path: Path) -> RegistrationRecord | None:
    """What a run made when it began; ``None`` where that is not known."""
    try:
        values = read_json(path)
        registered, pseudo_labeled = (
            parse_integer(values["registered"], 0, MAX_RECORD_PAIRS),
            values["pseudo_labeled"],
        )
        if registered is None or not isinstance(pseudo_labeled, list):
            return None
        return RegistrationRecord(
            registered,
            [n for n in pseudo_labeled if parse_integer(n, 0, registered - 1) is not None],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
