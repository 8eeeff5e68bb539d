"""Which cases a run learns from, frozen when it starts; no torch, so that reports can ask.

Labeled and unlabeled training cases and validation cases never mix.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_dycon.core.atomic import make_folder, write_json
from napari_dycon.core.untrusted import read_json, whole
from napari_dycon.engine.config import TrainConfig
from napari_dycon.errors import DyconError, UserError
from napari_dycon.project.case_ids import is_case_id

if TYPE_CHECKING:
    from napari_dycon.project.store import Project

GROUPS = "groups.json"
MOST_GROUPS = 2**24  # bytes of that file


@dataclass(frozen=True)
class Groups:
    """Ids of the cases of a run, and the values of its classes; frozen when the run starts."""

    labeled: list[str]
    unlabeled: list[str]
    validation: list[str]
    class_values: list[int]


def groups(project: Project, config: TrainConfig) -> Groups:
    """Sort the cases: labeled, unlabeled (none for a supervised run), validation."""
    labeled = [case.id for case in project.labeled_cases("train")]
    if not labeled:
        raise UserError(
            "No case is labeled yet, and training needs at least one. Paint a label on a scan "
            "in the window, or give label files with `napari-dycon new --labels DIR`."
        )
    wants = config.method != "supervised" and config.unlabeled_batch > 0
    unlabeled = [case.id for case in project.unlabeled_cases()] if wants else []
    validation = [case.id for case in project.labeled_cases("validation")]
    return Groups(labeled, unlabeled, validation, [c.value for c in project.classes])


def write_groups(state: Path, found: Groups) -> None:
    """Freeze the groups of a run in its state folder."""
    make_folder(state, within=state.parent)
    write_json(state / GROUPS, dataclasses.asdict(found))


def read_groups(state: Path) -> Groups | None:
    """Groups that a run was started with, from its state folder."""
    try:
        found = Groups(**read_json(state / GROUPS, MOST_GROUPS))
    except (OSError, ValueError, TypeError):
        return None
    ids = (found.labeled, found.unlabeled, found.validation)
    values = found.class_values
    if not all(isinstance(group, list) and all(map(is_case_id, group)) for group in ids):
        return None
    if not isinstance(values, list) or not all(whole(value, 1, 254) for value in values):
        return None
    return found if 0 < len(values) == len(set(values)) else None


def frozen_label(state: Path, case: str) -> Path:
    """Where the label lies that a run learns from."""
    return state / "labels" / f"{case}.npy"


def learned_from(project: Project, run_id: str | None) -> set[str]:
    """Cases whose labels a run learned from, itself or in the runs that it started from.

    Of a run that has not begun yet, all labeled cases of the training split count.
    """
    found: set[str] = set()
    runs: set[str] = set()
    while isinstance(run_id, str) and run_id not in runs:
        runs.add(run_id)
        try:
            run = project.get_run(run_id)
        except DyconError:  # deleted since
            break
        told = run.read_metrics().get("labeled")
        known = read_groups(run.state_folder)
        if told is not None:
            found |= set(told)
        elif known is not None:  # at work, or killed
            found |= {
                case for case in known.labeled if frozen_label(run.state_folder, case).exists()
            }
        else:
            found |= {case.id for case in project.labeled_cases("train")}
        try:
            run_id = run.read_config().get("init_from")
        except DyconError:
            break
    return found
