"""Data split of a run into labeled, unlabeled and validation cases, fixed when it starts.

The three sets are disjoint. Nothing here imports torch, so that reports can use it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field, StrictInt, TypeAdapter

from napari_dycon.core.atomic import ensure_dir, write_json
from napari_dycon.core.untrusted import read_json
from napari_dycon.engine.config import TrainConfig
from napari_dycon.errors import DyconError, UserError
from napari_dycon.project.case_ids import is_case_id

if TYPE_CHECKING:
    from napari_dycon.project.store import Project

SPLIT_FILE = "split.json"
MAX_SPLIT_BYTES = 2**24  # of the file
MAX_LISTED_CASES = 5


def _check_case_id(value: str) -> str:
    if not is_case_id(value):
        raise ValueError("not a case id")
    return value


def _check_unique(values: list[int]) -> list[int]:
    if len(set(values)) < len(values):
        raise ValueError("class values must differ")
    return values


CaseId = Annotated[str, AfterValidator(_check_case_id)]
ClassValue = Annotated[StrictInt, Field(ge=1, le=254)]


@dataclass(frozen=True)
class CaseSplit:
    """Ids of the cases of a run, and the values of its classes; fixed when the run starts."""

    labeled: list[CaseId]
    unlabeled: list[CaseId]
    validation: list[CaseId]
    class_values: Annotated[list[ClassValue], Field(min_length=1), AfterValidator(_check_unique)]


_CASE_SPLIT = TypeAdapter(CaseSplit)


def split_cases(project: Project, config: TrainConfig) -> CaseSplit:
    """Split the cases into labeled, unlabeled (none for a supervised run) and validation."""
    labeled = [case.id for case in project.labeled_cases("train")]
    validation = [case.id for case in project.labeled_cases("validation")]
    if not labeled and validation:
        raise UserError(describe_validation_only(validation))
    if not labeled:
        raise UserError(
            "No case is labeled yet, but training needs at least one. Annotate a scan "
            "in the window, or import label files with `napari-dycon new --labels DIR`."
        )
    uses_unlabeled = config.method != "supervised" and config.batch.unlabeled_size > 0
    unlabeled = [case.id for case in project.unlabeled_cases()] if uses_unlabeled else []
    return CaseSplit(labeled, unlabeled, validation, [c.value for c in project.classes])


def describe_validation_only(cases: Sequence[str]) -> str:
    """Explain why a project cannot be trained whose labeled cases are all for validation."""
    some = ", ".join(cases[:MAX_LISTED_CASES]) + (", …" if len(cases) > MAX_LISTED_CASES else "")
    what = f"The labeled case {some} is" if len(cases) == 1 else f"All labeled cases ({some}) are"
    return (
        f"{what} used for validation only, but training needs at least one other. Label another "
        "case, or use one of these for training: right-click it in the window, or run "
        f"napari-dycon cases PROJECT --training {cases[0]}"
    )


def save_case_split(state: Path, split: CaseSplit) -> None:
    """Save the data split of a run in its state folder."""
    ensure_dir(state, existing_root=state.parent)
    write_json(state / SPLIT_FILE, dataclasses.asdict(split))


def load_case_split(state: Path) -> CaseSplit | None:
    """Load the data split of a run from its state folder; ``None`` if missing or invalid."""
    try:
        return _CASE_SPLIT.validate_python(read_json(state / SPLIT_FILE, MAX_SPLIT_BYTES))
    except (OSError, ValueError):
        return None


def label_snapshot_path(state: Path, case: str) -> Path:
    """Return the path of the copy of a label that a run trains on."""
    return state / "labels" / f"{case}.npy"


def cases_trained_on(project: Project, run_id: str | None) -> set[str]:
    """Return the cases whose labels a run, or a run it was initialized from, was trained on.

    For a run that has not started yet, these are all labeled cases of the training split.
    """
    cases: set[str] = set()
    visited_runs: set[str] = set()
    while isinstance(run_id, str) and run_id not in visited_runs:
        visited_runs.add(run_id)
        try:
            run = project.runs.get(run_id)
        except DyconError:  # deleted in the meantime
            break
        labeled_ids = run.read_metrics().labeled
        split = load_case_split(run.state_folder)
        if labeled_ids is not None:
            cases |= set(labeled_ids)
        elif split is not None:  # running, or killed
            cases |= {
                case
                for case in split.labeled
                if label_snapshot_path(run.state_folder, case).exists()
            }
        else:
            cases |= {case.id for case in project.labeled_cases("train")}
        try:
            run_id = run.read_config().get("init_from")
        except DyconError:
            break
    return cases
