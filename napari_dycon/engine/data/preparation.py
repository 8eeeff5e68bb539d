"""From a project to what the loop draws from: prepared scans, sorted into the honest groups.

Labeled and unlabeled training cases and validation cases never mix. An unlabeled case is handed
on without its label even where one lies on the disk, and labels of validation cases are read by the
validation alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from napari_dycon.core.atomic import ensure_dir, write_json
from napari_dycon.core.types import UNANNOTATED
from napari_dycon.core.untrusted import read_json
from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.data.cases import LabeledCase, UnlabeledCase
from napari_dycon.engine.data.planning import Fingerprint, compute_fingerprint, plan_training
from napari_dycon.engine.data.preprocessing import (
    cache_path,
    fingerprint_path,
    prepare_image,
    prepare_label,
    read_label_array,
    save_array,
)
from napari_dycon.engine.data.splits import CaseSplit, label_snapshot_path, save_case_split
from napari_dycon.errors import DyconError, ProjectError, UserError
from napari_dycon.project.runs.events import Event, PreparingEvent

if TYPE_CHECKING:
    from napari_dycon.project.store import Project

T = TypeVar("T")

HEARTBEAT_S = 0.8  # between events while a scan is prepared
MAX_FINGERPRINTS = 40  # scans that the plan looks at
_FINGERPRINT = TypeAdapter(Fingerprint)


@dataclass
class TrainingData:
    """What a run learns from; ``config`` is the completed plan."""

    config: TrainConfig
    class_values: tuple[int, ...]
    channels: int
    labeled: list[LabeledCase] = field(default_factory=list)
    unlabeled: list[UnlabeledCase] = field(default_factory=list)
    registered_cases: list[LabeledCase] = field(default_factory=list)  # see registered_cases.py
    pseudo_labeled_cases: list[LabeledCase] = field(default_factory=list)  # see pseudo_labels.py
    validation: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def prepare_training_data(
    project: Project,
    config: TrainConfig,
    device: str,
    state: Path,
    split: CaseSplit,
    is_resumed: bool,
    card_bytes: int | None = None,
) -> Generator[Event, None, TrainingData]:
    """Plan the run and prepare its scans; yields ``preparing`` events and returns the data.

    There is an event for each scan, and at least one a second while a large scan is prepared.

    Parameters
    ----------
    device : "cuda", "mps" or "cpu"
    state : folder of the run, where the split and the current labels are frozen for the run
    split : cases of the run
    is_resumed : whether the run continues with the labels it was started with
    card_bytes : free memory of the graphics card, where it is known

    Raises
    ------
    UserError
        There is no label that a network could learn from.
    """
    labeled, unlabeled = split.labeled, split.unlabeled
    ids = [*labeled, *unlabeled]
    preparing_event = PreparingEvent(done=0, total=len(ids))
    fingerprints = yield from _run_with_heartbeat(
        lambda: _load_fingerprints(project, split), preparing_event
    )
    planned = plan_training(
        config,
        fingerprints,
        device,
        card_bytes=card_bytes,
        channels=len(project.channels),
        classes=len(split.class_values) + 1,
    )
    data = TrainingData(
        planned,
        class_values=tuple(split.class_values),
        channels=len(project.channels),
        validation=split.validation,
    )
    if not is_resumed:
        save_case_split(state, split)
    for index, case in enumerate(ids, start=1):
        task = functools.partial(
            _prepare_case, project, data, case, state, index <= len(labeled), is_resumed
        )
        yield from _run_with_heartbeat(task, PreparingEvent(done=index - 1, total=len(ids)))
        yield PreparingEvent(done=index, total=len(ids))
    if not data.labeled:
        reason = data.warnings[0] if data.warnings else "The state of this run is damaged."
        raise UserError(f"No label can be learned from yet. {reason}")
    if not any(has_foreground(case) for case in data.labeled):
        raise UserError(
            "No label can be learned from yet: none of them shows a structure. Mark some of it in "
            "at least one scan."
        )
    data.warnings += _warn_of_missing_structures(project, data)
    if not unlabeled and config.method != "supervised" and config.batch.unlabeled_size:
        data.warnings.append(
            f"No case is unlabeled, so {config.method} learns from labels alone, as supervised "
            "does. Add scans without labels for it to learn from."
        )
    return data


def _prepare_case(
    project: Project, data: TrainingData, case: str, state: Path, is_labeled: bool, is_resumed: bool
) -> None:
    """Cache a scan for the planned network, freeze its label, and add both to the data."""
    images = project.image_paths(case)
    image_path = cache_path(project.cache_folder, case, images, data.config)
    volume = None
    if not image_path.exists():
        volume = project.read_image(case)
        save_array(image_path, prepare_image(volume, data.config))
    label_path = label_snapshot_path(state, case)
    if not is_labeled:
        data.unlabeled.append(UnlabeledCase(case, image_path))
    elif is_resumed:
        if label_path.exists():
            _check_label_snapshot(label_path, len(data.class_values))
            data.labeled.append(LabeledCase(case, image_path, label_path))
    else:
        volume = volume or project.read_image(case)
        label = project.labels.read(case, reference=volume)
        assert label is not None
        indices = values_to_indices(prepare_label(label, volume, data.config), data.class_values)
        values = set(np.unique(indices).tolist())
        # A single value teaches nothing, but that a whole scan shows no structure does.
        if len(values - {UNANNOTATED}) < 2 and values != {0}:
            data.warnings.append(f"Case {case} is left out: {_explain_annotation(values)}")
        else:
            save_array(label_path, indices)
            data.labeled.append(LabeledCase(case, image_path, label_path))


def _explain_annotation(values: set[int]) -> str:
    """Explain why a label with these values teaches nothing, and what to do."""
    if 0 in values:
        what, advice = "only background", "Paint some of the structure, or mark the scan complete."
    elif values == {UNANNOTATED}:
        what, advice = "nothing", "Paint some of the structure and some background."
    else:
        what, advice = "only a structure", "Paint some background, or mark a slice complete."
    return f"{what} is annotated in it. {advice}"


def _run_with_heartbeat(task: Callable[[], T], event: Event) -> Generator[Event, None, T]:
    """Do work in a thread and yield the event every ``HEARTBEAT_S``."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(task)
        while not wait([future], timeout=HEARTBEAT_S).done:
            yield event
        return future.result()


def has_foreground(case: LabeledCase) -> bool:
    """Whether anything but background is annotated."""
    label = read_label_array(case.label)
    return bool(np.any((label != 0) & (label != UNANNOTATED)))


def _warn_of_missing_structures(project: Project, data: TrainingData) -> list[str]:
    """Name the structures of which no case has an example; a network predicts them anywhere."""
    present: set[int] = set()
    for case in data.labeled:
        present |= set(np.unique(read_label_array(case.label)).tolist())
    names = {info.value: info.name for info in project.classes}
    missing = [
        names.get(value, str(value))
        for index, value in enumerate(data.class_values, start=1)
        if index not in present
    ]
    if not missing:
        return []
    what = " and ".join(filter(None, (", ".join(missing[:-1]), missing[-1])))
    verb, it = ("is", "it") if len(missing) == 1 else ("are", "them")
    return [
        f"{what} {verb} not annotated in any case, so predictions of {it} mean nothing. Annotate "
        f"{it} in a scan, or delete {it} from the list of structures."
    ]


def _check_label_snapshot(path: Path, classes: int) -> None:
    """Refuse a label of a resumed run that names classes it does not have."""
    label = read_label_array(path)
    if label[label != UNANNOTATED].max(initial=0) > classes:
        raise UserError(
            f"The state of this run is damaged: {path.name} holds classes that it was not started "
            "with. Start a new run."
        )


def values_to_indices(
    label: npt.NDArray[np.uint8], class_values: tuple[int, ...]
) -> npt.NDArray[np.uint8]:
    """Label values to network outputs (0, 1, 2, ...); 255 stays."""
    table = np.zeros(256, dtype=np.uint8)
    table[list(class_values)] = np.arange(1, len(class_values) + 1)
    table[UNANNOTATED] = UNANNOTATED
    return table[label]


def _load_fingerprints(project: Project, split: CaseSplit) -> list[Fingerprint]:
    """Describe up to ``MAX_FINGERPRINTS`` scans, evenly spread over the cases.

    Also for a run that learns from labeled scans alone the unlabeled ones are looked at, so that
    all methods get the same patch, network and intensities, and differ by the method alone.
    """
    unlabeled = split.unlabeled or [case.id for case in project.unlabeled_cases()]
    ids = sorted({*split.labeled, *unlabeled})  # labeling one more must not choose other scans
    sampled_ids = [
        ids[i] for i in np.unique(np.linspace(0, len(ids) - 1, MAX_FINGERPRINTS).astype(int))
    ]
    fingerprints = []
    for case in sampled_ids:
        try:
            fingerprints.append(_load_fingerprint(project, case))
        except DyconError:
            if case in split.labeled or case in split.unlabeled:
                raise
            continue  # a scan that the run has no need of
    return fingerprints


def _load_fingerprint(project: Project, case: str) -> Fingerprint:
    """Describe a scan, from what an earlier run kept of it or from its files."""
    path = None
    with contextlib.suppress(OSError):  # reading the scan tells in words what is wrong
        path = fingerprint_path(project.cache_folder, case, project.image_paths(case))
    if path and (cached := _read_fingerprint(path)):
        return cached
    volume = project.read_image(case)
    computed = compute_fingerprint(volume.array, volume.spacing_mm)
    if path:
        with contextlib.suppress(ProjectError, OSError):  # it only saves time
            ensure_dir(path.parent, existing_root=project.path)
            write_json(path, dataclasses.asdict(computed))
    return computed


def _read_fingerprint(path: Path) -> Fingerprint | None:
    """Read the cached description of a scan; ``None`` if it is missing or invalid."""
    try:
        return _FINGERPRINT.validate_python(read_json(path))
    except (OSError, ValueError):
        return None
