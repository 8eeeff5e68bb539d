"""The history of training runs, and whether more labels still help."""

from __future__ import annotations

from helpers.tiny_runs import TINY

from napari_dycon.application.training_history import (
    RunSummary,
    label_gain_summary,
    read_training_history,
)
from napari_dycon.engine.config import make_config
from napari_dycon.engine.training.run import train
from napari_dycon.project.store import Project


def make_summary(labeled: int, dice: float | None) -> RunSummary:
    return RunSummary("001", "dycon", labeled, 100, dice, None, "finished", [], [])


def test_the_history_lists_the_training_cases_of_each_run(project: Project) -> None:
    project.set_split("scan-2", "validation")
    config = make_config("dycon", **TINY)
    list(train(project, config))
    first = project.runs.list()[-1]
    project.runs.create("dycon", config.to_dict())  # never started: no round
    list(train(project, config.with_changes(init_from=first.id)))
    history = read_training_history(project)
    assert [r.n_labeled for r in history] == [2, 2]
    assert [r.init_from for r in history] == [None, first.id]
    assert all(r.steps == TINY["steps"] and r.outcome == "finished" for r in history)
    assert all(r.dice is not None and r.validation and r.loss for r in history)


def test_the_learning_curve_verdict_needs_two_label_counts_and_a_score() -> None:
    assert label_gain_summary([]) == ""
    assert label_gain_summary([make_summary(2, 0.7), make_summary(2, 0.8)]) == ""
    assert label_gain_summary([make_summary(2, None), make_summary(4, None)]) == ""
    assert "more labels still help" in label_gain_summary(
        [make_summary(2, 0.7), make_summary(4, 0.75)]
    )
    assert label_gain_summary([make_summary(2, 0.7), make_summary(3, 0.75)]).startswith(
        "1 more labeled case raised validation Dice by 5.0"
    )
    assert "help little" in label_gain_summary([make_summary(4, 0.75), make_summary(8, 0.752)])
    assert "fell by 3.0" in label_gain_summary([make_summary(4, 0.78), make_summary(8, 0.75)])
    best_counts = [
        make_summary(4, 0.7),
        make_summary(8, 0.6),
        make_summary(8, 0.8),
    ]  # an unlucky run is no verdict
    assert "still help" in label_gain_summary(best_counts)


def test_long_curves_are_thinned() -> None:
    from napari_dycon.application.training_history import MAX_CURVE_POINTS
    from napari_dycon.core.sequences import subsample

    curve = [(float(i), 0.5) for i in range(10_001)]
    assert len(subsample(curve, MAX_CURVE_POINTS)) <= MAX_CURVE_POINTS
