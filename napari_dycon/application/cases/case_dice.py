"""Dice of the cases of a project, as far as it says something, and the run that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from napari_dycon import io
from napari_dycon.application.cases.agreement import (
    ACCEPTED_TIP,
    Agreement,
    describe_partial,
    measure_agreement,
)
from napari_dycon.errors import DyconError
from napari_dycon.project.models import Status
from napari_dycon.project.store import Project

FileVersion = tuple[object, ...]


class CaseDice(NamedTuple):
    """Mean Dice of a case; without one, ``note`` says why where label and prediction exist."""

    value: float | None
    note: str = ""


NO_DICE = CaseDice(None)


@dataclass(frozen=True)
class ComparedFiles:
    """Label and newest prediction of a case, identified by the state of their files."""

    run: str
    label: FileVersion | None
    prediction: FileVersion


def find_older_runs(project: Project, newest: Mapping[str, str]) -> dict[str, str]:
    """Return the runs of cases that a newer run did not predict, while it did predict others.

    Parameters
    ----------
    newest : newest run that predicted each case, by case id
    """
    present = set(newest.values())
    order = [run.id for run in project.runs.list() if run.id in present]
    return {case: run for case, run in newest.items() if order and run != order[-1]}


def find_compared_files(project: Project, newest: Mapping[str, str]) -> dict[str, ComparedFiles]:
    """Find the cases with a label and a prediction; parameters as in ``find_older_runs``."""
    found = {}
    for case in project.cases:
        run = newest.get(case.id)
        if run is None or case.status == Status.UNLABELED:
            continue
        path = project.predictions.path(run, case.id)
        found[case.id] = ComparedFiles(
            run, project.labels.version(case.id), (path, path.stat().st_mtime_ns)
        )
    return found


def compute_case_dice(project: Project, case: str, run: str) -> CaseDice:
    """Compare the saved label of a case with a run's prediction."""
    try:
        mask = io.read_label(project.predictions.path(run, case))
        label = project.labels.read(case, reference=mask)
    except DyconError:  # missing, damaged, or on different grids
        return NO_DICE
    if label is None:
        return NO_DICE
    agreement = measure_agreement(project, case, run, label, mask.array, mask.spacing_mm)
    return get_case_dice(agreement)


def get_case_dice(agreement: Agreement) -> CaseDice:
    """Return the Dice that an agreement of label and prediction says something about."""
    if agreement.is_accepted:
        return CaseDice(None, ACCEPTED_TIP)
    if agreement.is_partial:
        has_dice = any(row.dice is not None for row in agreement.rows)
        return CaseDice(None, describe_partial(agreement)) if has_dice else NO_DICE
    return CaseDice(agreement.mean_dice)
