"""The history of training runs, and what can be said about their differences."""

from __future__ import annotations

import dataclasses
from typing import Any

from helpers.tiny_runs import TINY

from napari_dycon.application.training.history import (
    RunSummary,
    compare_rounds,
    read_training_history,
)
from napari_dycon.engine.config import make_config
from napari_dycon.engine.training.run import train
from napari_dycon.project.store import Project


def make_summary(run: str, labeled: int, dice: float | None, **changes: Any) -> RunSummary:
    summary = RunSummary(run, "dycon", labeled, 100, dice, None, "finished", [], [], n_validation=1)
    return dataclasses.replace(summary, **changes)


def test_the_history_lists_the_training_cases_of_each_run(project: Project) -> None:
    project.set_split("scan-2", "validation")
    config = make_config("dycon", **TINY)
    list(train(project, config))
    first = project.runs.list()[-1]
    project.runs.create("dycon", config.to_dict())  # never started: not listed
    list(train(project, config.with_changes(init_from=first.id)))
    history = read_training_history(project)
    assert [r.n_labeled for r in history] == [2, 2]
    assert [r.init_from for r in history] == [None, first.id]
    assert all(r.steps == TINY["steps"] and r.outcome == "finished" for r in history)
    assert all(r.dice is not None and r.validation and r.loss for r in history)


def test_a_comparison_needs_two_scored_runs() -> None:
    assert compare_rounds([]) == ""
    assert compare_rounds([make_summary("001", 2, 0.7)]) == ""
    assert compare_rounds([make_summary("001", 2, None), make_summary("002", 4, 0.7)]) == ""


def test_a_comparison_names_every_difference_and_concludes_nothing() -> None:
    first = make_summary("001", 3, 0.41)
    second = make_summary("002", 3, 0.44, init_from="001")
    assert compare_rounds([first, second]) == (
        "Dice 0.41 → 0.44 on one validation case; 002 trained longer."
    )
    assert compare_rounds([first, dataclasses.replace(second, n_labeled=4)]) == (
        "Dice 0.41 → 0.44 on one validation case; 002 had 1 more annotated case and trained longer."
    )
    equal = make_summary("002", 5, 0.3, n_validation=2)
    assert compare_rounds([dataclasses.replace(first, n_validation=2), equal]) == (
        "Dice 0.41 → 0.30 on 2 validation cases; 002 had 2 more annotated cases."
    )
    shorter = make_summary("002", 2, 0.3, steps=60, method="supervised", n_validation=2)
    assert compare_rounds([first, shorter]) == (
        "Dice 0.41 → 0.30 on 2 validation cases; 002 had 1 fewer annotated case and trained "
        "for a shorter time and was scored on 2 instead of 1 cases and used another method."
    )
    assert compare_rounds([first, make_summary("002", 3, 0.42)]) == (
        "Dice 0.41 → 0.42 on one validation case."
    )


def test_a_comparison_of_hardly_trained_networks_says_so() -> None:
    history = [make_summary("001", 3, 0.0, steps=11), make_summary("002", 4, 0.0, steps=10)]
    text = compare_rounds(history)
    assert "Fewer than 50 steps are too few to compare." in text
    assert "help" not in text


def test_runs_between_that_have_no_score_are_named() -> None:
    history = [
        make_summary("001", 3, 0.41),
        make_summary("002", 3, None),
        make_summary("003", 3, 0.5),
    ]
    assert compare_rounds(history).startswith("001 and 003: Dice 0.41 → 0.50")


def test_long_curves_are_thinned() -> None:
    from napari_dycon.application.training.history import MAX_CURVE_POINTS
    from napari_dycon.core.sequences import subsample

    curve = [(float(i), 0.5) for i in range(10_001)]
    assert len(subsample(curve, MAX_CURVE_POINTS)) <= MAX_CURVE_POINTS
