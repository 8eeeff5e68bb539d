"""Choice of validation cases, and what a change means for the Dice of trainings before and after.

A validation Dice is only independent if no network was trained on the label of the case.
"""

from __future__ import annotations

from collections.abc import Sequence

from napari_dycon.engine.data.splits import cases_trained_on
from napari_dycon.project.models import Case, Split, Status
from napari_dycon.project.store import Project


def change_splits(project: Project, splits: dict[str, Split]) -> list[str]:
    """Use cases for training or for validation.

    Returns
    -------
    notes on what the changes mean
    """
    changed = [case for case in project.cases if splits.get(case.id, case.split) != case.split]
    for case_id, split in splits.items():
        project.set_split(case_id, split)
    if not changed:
        return []
    run_ids = [run.id for run in project.runs.list() if run.has_weights]
    trained = cases_trained_on(project, run_ids[-1]) if run_ids else set()
    added = [case for case in changed if case.split == "train"]  # as they were before
    removed = [case for case in changed if case.split == "validation"]
    return [
        *(_describe_added(added, trained) if added else ()),
        *(_describe_removed(project, removed, has_runs=bool(run_ids)) if removed else ()),
    ]


def _describe_added(cases: Sequence[Case], trained_ids: set[str]) -> list[str]:
    """Describe cases that are used for validation from now on."""
    notes = []
    if unlabeled := [case for case in cases if case.status is Status.UNLABELED]:
        notes.append(f"{_list_names(unlabeled)}: used for validation once the scan is labeled.")
    labeled = [case for case in cases if case.status is not Status.UNLABELED]
    if trained := [case for case in labeled if case.id in trained_ids]:
        notes.append(
            f"{_list_names(trained)}: used for validation only from the next training on. The "
            "present networks were trained on this label, so their Dice on it is too optimistic. "
            "For an independent Dice, train again without Initialize from previous run."
        )
    if independent := [case for case in labeled if case.id not in trained_ids]:
        notes.append(
            f"{_list_names(independent)}: used for validation only. It is never trained on, and "
            "the next training shows the Dice on it."
        )
    return notes


def _describe_removed(project: Project, cases: Sequence[Case], *, has_runs: bool) -> list[str]:
    """Describe cases that are used for training from now on."""
    text = f"{_list_names(cases)}: used for training from the next training on."
    if has_runs:
        text += " Its Dice is no longer independent then."
    if not project.has_labeled_cases("validation"):
        text += " There is no labeled validation case left, so the next training has no Dice."
    elif has_runs:
        text += " Dice of earlier and later trainings is of different cases."
    return [text]


def _list_names(cases: Sequence[Case]) -> str:
    return ", ".join(case.display_name for case in cases)
