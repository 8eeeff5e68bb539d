"""Dice of partial labels, of replaced predictions and of older runs in list and table."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_dycon.annotation.coverage import AnnotatedSlices, count_annotated_slices
from napari_dycon.application.active_learning import Suggester, Suggestion
from napari_dycon.application.cases import summaries as summaries_module
from napari_dycon.application.cases.active_agreement import ActiveAgreement
from napari_dycon.application.cases.agreement import measure_agreement
from napari_dycon.application.cases.summaries import CaseSummaries, CaseSummary
from napari_dycon.application.task_runner import InlineTaskRunner
from napari_dycon.core.types import UNANNOTATED, LabelArray
from napari_dycon.project.store import Project
from napari_dycon.session import Session

CASE = "scan-3"


class HeldTaskRunner(InlineTaskRunner):
    """Runs tasks when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Callable[[], None]] = []

    def submit(self, task: Any, on_done: Any, on_error: Any) -> None:
        self.held.append(lambda: super(HeldTaskRunner, self).submit(task, on_done, on_error))

    def run_all(self) -> None:
        while self.held:
            self.held.pop(0)()


def write_prediction(project: Project, cases: list[str], stop: int = 12) -> str:
    run = project.runs.create("dycon", {})
    for case in cases:
        mask = np.zeros(project.read_image(case).shape, np.uint8)
        mask[4:12, 4:12, 4:stop] = 1
        zeros = np.zeros(mask.shape, np.float32)
        project.predictions.write(run.id, case, mask, zeros, zeros)
    return run.id


def draw_complete(session: Session) -> None:
    label = session.require_case().label
    label[:] = 0
    label[4:12, 4:12, 4:10] = 1
    session.flush()


@pytest.fixture
def session(project: Project) -> Session:
    write_prediction(project, [CASE])
    made = Session()
    made.open_project(project.path)
    made.show_case(CASE)
    return made


def summarize(session: Session, case: str = CASE) -> CaseSummary:
    summaries = CaseSummaries(
        session.state, session.task_runner, session.active_learning, session.active_agreement
    )
    summaries.refresh()
    return summaries.get(case)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_counted_along_the_axis_that_was_drawn_in(axis: int) -> None:
    label: LabelArray = np.full((6, 7, 8), UNANNOTATED, np.uint8)
    drawn = np.moveaxis(label, axis, 0)
    drawn[1, 2:5, 2:5] = 1
    drawn[3] = 0
    assert count_annotated_slices(label) == AnnotatedSlices(2, label.shape[axis])
    assert str(count_annotated_slices(label)) == f"2 of {label.shape[axis]} slices"


def test_a_partial_label_has_no_dice_in_list_and_table(session: Session) -> None:
    case = session.require_case()
    for index in (6, 8):
        case.label[index] = 0
        case.label[index, 4:12, 4:10] = 1
    session.flush()
    agreement = measure_agreement(
        session.require_project(), CASE, case.run, case.label, case.prediction, (1.0, 1.0, 1.0)
    )
    (row,) = agreement.rows
    assert agreement.mean_dice is None
    assert agreement.format_dice(row) == "partial"
    expected = f"annotated in 2 of {case.label.shape[0]} slices. Dice in the annotated voxels: 0.86"
    assert expected in agreement.explain_dice(row)
    summary = summarize(session)
    assert (summary.dice, summary.dice_text) == (None, "–")
    assert expected in summary.dice_tip


def test_the_dice_of_a_complete_label_is_shown_without_note(session: Session) -> None:
    draw_complete(session)
    summary = summarize(session)
    assert (summary.dice_text, summary.dice_tip) == ("0.86", "")


def test_values_of_an_older_run_are_marked_beside_those_of_a_newer_one(
    session: Session, project: Project
) -> None:
    draw_complete(session)
    old = project.runs.list()[-1].id
    new = write_prediction(project, ["scan-4"])
    summary = summarize(session)
    assert summary.older_run == old
    assert summary.dice_text == "0.86*"
    assert old in summary.dice_tip
    assert new not in summary.dice_tip
    assert not summarize(session, "scan-4").older_run
    write_prediction(project, [CASE, "scan-4"])
    assert summarize(session).dice_text == "0.86"


def test_no_dice_of_a_replaced_prediction_is_left_in_the_list(
    session: Session, project: Project
) -> None:
    draw_complete(session)
    runner = HeldTaskRunner()
    summaries = CaseSummaries(
        session.state, runner, session.active_learning, session.active_agreement
    )
    summaries.refresh()
    runner.run_all()
    assert summaries.get(CASE).dice_text == "0.86"
    write_prediction(project, [CASE], stop=11)
    summaries.refresh()
    runner.held.pop(0)()  # it is known that the prediction is new
    assert summaries.get(CASE).dice_text == "…"
    runner.run_all()
    assert summaries.get(CASE).dice_text == "0.92"


def paint_before_it_is_measured(session: Session) -> tuple[HeldTaskRunner, CaseSummaries]:
    """Change a label with a known Dice of 0.86 so that it is 0.40; nothing is measured yet."""
    draw_complete(session)
    runner = HeldTaskRunner()
    active = ActiveAgreement(session.state, runner)
    summaries = CaseSummaries(session.state, runner, session.active_learning, active)
    summaries.refresh()
    runner.run_all()
    session.require_case().label[4:12, 4:12, 4:12] = 0
    session.require_case().label[4:12, 4:12, 4:6] = 1
    return runner, summaries


def test_a_stroke_keeps_the_dice_until_the_next_one_is_known(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, summaries = paint_before_it_is_measured(session)
    monkeypatch.delattr(summaries_module, "compute_case_dice")  # the label is in memory
    session.flush()
    assert summaries.get(CASE).dice_text == "0.86"
    runner.run_all()
    assert summaries.get(CASE).dice_text == "0.40"


def test_the_dice_of_a_case_that_was_left_is_that_of_its_saved_label(session: Session) -> None:
    runner, summaries = paint_before_it_is_measured(session)
    session.show_case("scan-4")  # before the agreement is measured
    runner.run_all()
    assert summaries.get(CASE).dice_text == "0.40"


def test_an_error_of_the_project_before_does_not_keep_the_next_from_the_list(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Project.open(shutil.copytree(project.path, tmp_path / "other"))
    runner = HeldTaskRunner()
    session = Session(runner)
    summaries = CaseSummaries(
        session.state, runner, session.active_learning, session.active_agreement
    )
    suggest = Suggester.suggest

    def fail_for_the_first(suggester: Suggester, asked: Project) -> list[Suggestion]:
        if asked is project:
            raise OSError("the drive is gone")
        return suggest(suggester, asked)

    monkeypatch.setattr(Suggester, "suggest", fail_for_the_first)
    session.set_project(project)
    session.set_project(other)
    with contextlib.suppress(OSError):
        runner.run_all()
    runner.run_all()
    assert summaries.get(CASE).suggestion is not None
