"""Choice of validation cases, and what a change means for the Dice of trainings before and after.

A validation Dice is only independent if no network was trained on the label of the case.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from napari_dycon.engine.data.splits import cases_trained_on
from napari_dycon.project.models import Case, Split, Status
from napari_dycon.project.store import Project

NOTHING_TO_TRAIN_ON = (
    "No labeled case is left to train on. Label another one, or use this one for training again."
)


class SplitNote(NamedTuple):
    """What a change means, and the level of the message: "info" or "warning"."""

    level: str
    text: str


def change_splits(project: Project, splits: dict[str, Split]) -> list[SplitNote]:
    """Use cases for training or for validation; returns notes on what the changes mean."""
    changed = [case for case in project.cases if splits.get(case.id, case.split) != case.split]
    for case_id, split in splits.items():
        project.set_split(case_id, split)
    if not changed:
        return []
    run_ids = [run.id for run in project.runs.list() if run.has_weights]
    trained = cases_trained_on(project, run_ids[-1]) if run_ids else set()
    added = [case for case in changed if case.split == "train"]  # as they were before
    removed = [case for case in changed if case.split == "validation"]
    notes = _describe_added(added, trained)
    if added and not project.has_labeled_cases():
        notes.append(SplitNote("warning", NOTHING_TO_TRAIN_ON))
    return [*notes, _describe_removed(project, removed, bool(run_ids))] if removed else notes


def _describe_added(cases: Sequence[Case], trained_ids: set[str]) -> list[SplitNote]:
    """Describe cases that are used for validation from now on."""
    notes = []
    if unlabeled := [case for case in cases if case.status is Status.UNLABELED]:
        text = f"{_list_names(unlabeled)}: used for validation once labeled."
        notes.append(SplitNote("info", text))
    labeled = [case for case in cases if case.status is not Status.UNLABELED]
    if trained := [case for case in labeled if case.id in trained_ids]:
        its = "its" if len(trained) == 1 else "their"
        text = (
            f"{_list_names(trained)}: trained on so far, so {its} Dice is too high until you train "
            "again from scratch (without Initialize from previous run)."
        )
        notes.append(SplitNote("warning", text))
    if independent := [case for case in labeled if case.id not in trained_ids]:
        its = "its" if len(independent) == 1 else "their"
        text = f"{_list_names(independent)}: validation only. The next training shows {its} Dice."
        notes.append(SplitNote("info", text))
    return notes


def _describe_removed(project: Project, cases: Sequence[Case], has_runs: bool) -> SplitNote:
    """Describe cases that are used for training from now on."""
    if not project.has_labeled_cases("validation"):
        text = "used for training. No validation case is left: the next training shows no Dice."
        return SplitNote("warning", f"{_list_names(cases)}: {text}")
    text = f"{_list_names(cases)}: used for training."
    if has_runs:
        text += " Later trainings measure Dice on other cases: do not compare it with earlier ones."
    return SplitNote("info", text)


def _list_names(cases: Sequence[Case]) -> str:
    return ", ".join(case.display_name for case in cases)
