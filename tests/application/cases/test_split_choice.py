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
    assert note.level == "warning"
    assert note.text.startswith("scan-2: trained on so far, so its Dice is too high")
    assert "without Initialize from previous run" in note.text
    assert project.get_case("scan-2").split == "validation"


def test_a_case_that_was_never_trained_on_is_independent(project: Project) -> None:
    add_trained_run(project, "scan-0", "scan-1")
    (note,) = change_splits(project, {"scan-2": "validation"})
    assert note == ("info", "scan-2: validation only. The next training shows its Dice.")


def test_without_a_training_there_is_nothing_to_warn_of(project: Project) -> None:
    (note,) = change_splits(project, {"scan-1": "validation"})
    assert "too high" not in note.text
    (note,) = change_splits(project, {"scan-1": "train"})
    assert note.level == "warning"
    assert "No validation case is left" in note.text


def test_an_unlabeled_case_waits_for_its_label(project: Project) -> None:
    (note,) = change_splits(project, {"scan-5": "validation"})
    assert note == ("info", "scan-5: used for validation once labeled.")


def test_use_for_training_changes_later_dice(project: Project) -> None:
    change_splits(project, {"scan-1": "validation", "scan-2": "validation"})
    add_trained_run(project, "scan-0")
    (note,) = change_splits(project, {"scan-2": "train"})
    assert note.text.startswith("scan-2: used for training.")
    assert "do not compare" in note.text
    assert project.get_case("scan-2").split == "train"


def test_several_cases_are_named_together(project: Project) -> None:
    project.rename_case("scan-1", "Second patient")
    add_trained_run(project, "scan-0", "scan-1", "scan-2")
    (note,) = change_splits(project, {"scan-1": "validation", "scan-2": "validation"})
    assert note.text.startswith("Second patient, scan-2: trained on so far, so their Dice")


def test_no_change_needs_no_note(project: Project) -> None:
    assert change_splits(project, {"scan-1": "train"}) == []
