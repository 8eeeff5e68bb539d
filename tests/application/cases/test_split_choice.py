"""What it means when a case is used for validation, or for training again."""

from __future__ import annotations

from napari_dycon.application.cases.split_choice import change_splits
from napari_dycon.engine.config import make_config
from napari_dycon.project.runs.metadata import RunMetrics
from napari_dycon.project.store import Project


def add_trained_run(project: Project, *labeled: str) -> None:
    run = project.runs.create("dycon", make_config("dycon").to_dict())
    run.weights_path.write_bytes(b"weights")
    run.write_metrics(RunMetrics(labeled=list(labeled)))


def test_a_case_that_was_trained_on_has_no_independent_dice(project: Project) -> None:
    add_trained_run(project, "scan-0", "scan-1", "scan-2")
    (note,) = change_splits(project, {"scan-2": "validation"})
    assert note.startswith("scan-2: used for validation only from the next training on.")
    assert "their Dice on it is too optimistic" in note
    assert "without Initialize from previous run" in note
    assert project.get_case("scan-2").split == "validation"


def test_a_case_that_was_never_trained_on_is_independent(project: Project) -> None:
    add_trained_run(project, "scan-0", "scan-1")
    (note,) = change_splits(project, {"scan-2": "validation"})
    assert "never trained on" in note
    assert "optimistic" not in note


def test_without_a_training_there_is_nothing_to_warn_of(project: Project) -> None:
    (note,) = change_splits(project, {"scan-1": "validation"})
    assert "optimistic" not in note
    (note,) = change_splits(project, {"scan-1": "train"})
    assert "independent" not in note
    assert "There is no labeled validation case left" in note


def test_an_unlabeled_case_waits_for_its_label(project: Project) -> None:
    (note,) = change_splits(project, {"scan-5": "validation"})
    assert note == "scan-5: used for validation once the scan is labeled."


def test_use_for_training_changes_later_dice(project: Project) -> None:
    change_splits(project, {"scan-1": "validation", "scan-2": "validation"})
    add_trained_run(project, "scan-0")
    (note,) = change_splits(project, {"scan-2": "train"})
    assert note.startswith("scan-2: used for training from the next training on.")
    assert "no longer independent" in note
    assert "different cases" in note
    assert project.get_case("scan-2").split == "train"


def test_several_cases_are_named_together(project: Project) -> None:
    project.rename_case("scan-1", "Second patient")
    add_trained_run(project, "scan-0", "scan-1", "scan-2")
    (note,) = change_splits(project, {"scan-1": "validation", "scan-2": "validation"})
    assert note.startswith("Second patient, scan-2: used for validation only")


def test_no_change_needs_no_note(project: Project) -> None:
    assert change_splits(project, {"scan-1": "train"}) == []
