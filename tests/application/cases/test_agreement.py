"""No Dice of a prediction with a label that was made from it; partial volumes are marked."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dycon.application.cases.agreement import measure_agreement
from napari_dycon.application.cases.summaries import CaseSummaries
from napari_dycon.core.types import LabelArray
from napari_dycon.project.acceptances import is_accepted, record_acceptance
from napari_dycon.project.store import Project
from napari_dycon.session import Session

CASE = "scan-3"


@pytest.fixture
def prediction(project: Project) -> LabelArray:
    run = project.runs.create("dycon", {})
    mask = np.zeros(project.read_image(CASE).shape, np.uint8)
    mask[4:12, 4:12, 4:12] = 1
    zeros = np.zeros(mask.shape, np.float32)
    project.predictions.write(run.id, CASE, mask, zeros, zeros)
    return mask


@pytest.fixture
def session(project: Project, prediction: LabelArray) -> Session:
    made = Session()
    made.open_project(project.path)
    made.show_case(CASE)
    return made


def listed(session: Session) -> tuple[str, str]:
    """Text and tooltip of the Dice in the list of cases."""
    summaries = CaseSummaries(
        session.state, session.task_runner, session.active_learning, session.active_agreement
    )
    summaries.refresh()
    summary = summaries.get(CASE)
    return summary.dice_text, summary.dice_tip


def in_table(session: Session) -> tuple[str, str]:
    """Volume of the label and Dice in the table of the Review tab."""
    case = session.require_case()
    agreement = measure_agreement(
        session.require_project(), CASE, case.run, case.label, case.prediction, (1.0, 1.0, 1.0)
    )
    (row,) = agreement.rows
    return agreement.format_label_volume(row), agreement.format_dice(row)


def test_a_label_drawn_by_hand_has_a_dice(session: Session) -> None:
    label = session.require_case().label
    label[:] = 0
    label[4:12, 4:12, 4:10] = 1
    session.flush()
    assert in_table(session) == ("0.38", "0.86")
    assert listed(session) == ("0.86", "")


def test_an_accepted_prediction_has_none(session: Session) -> None:
    session.accept_prediction()
    assert in_table(session) == ("0.51", "accepted")
    text, tip = listed(session)
    assert text == "–"
    assert "made from this prediction" in tip


def test_corrections_do_not_make_an_accepted_prediction_independent(session: Session) -> None:
    session.accept_prediction()
    session.require_case().label[4, 4:12, 4:12] = 0
    session.flush()
    assert in_table(session)[1] == "accepted"
    assert listed(session)[0] == "–"


def test_a_part_that_was_accepted_counts_too(session: Session) -> None:
    label = session.require_case().label
    label[2:5, 5:10, 5:10] = 1
    session.flush()
    session.accept_prediction(slice_=(0, 8))
    assert in_table(session) == ("0.14 (partial)", "accepted")


def test_after_an_undo_the_dice_is_back_and_after_a_redo_it_is_not(session: Session) -> None:
    label = session.require_case().label
    label[2:5, 5:10, 5:10] = 1
    session.flush()
    before = label.copy()
    session.accept_prediction(slice_=(0, 8))
    after = label.copy()
    assert in_table(session)[1] == "accepted"

    def step_to(state: LabelArray) -> None:
        label[:] = state
        session.state.edit_undone.emit()
        session.flush()

    step_to(before)
    assert in_table(session)[1] not in ("accepted", "–")
    label[15, 5:10, 5:10] = 1  # drawn on by hand
    session.flush()
    assert "Partial label" in listed(session)[1]  # and not that it was accepted
    step_to(before)
    step_to(after)
    assert in_table(session)[1] == "accepted"


def test_the_next_run_has_an_origin_of_its_own(
    session: Session, project: Project, prediction: LabelArray
) -> None:
    session.accept_prediction()
    run = project.runs.create("dycon", {})
    other = prediction.copy()
    other[4] = 0
    zeros = np.zeros(other.shape, np.float32)
    project.predictions.write(run.id, CASE, other, zeros, zeros)
    session.refresh_prediction(CASE)
    assert in_table(session)[1] == "0.93"
    assert listed(session) == ("0.93", "")


def test_partial_volumes_are_marked_and_missing_ones_are_not_zero(session: Session) -> None:
    assert in_table(session) == ("–", "–")
    session.require_case().label[8, 4:12, 4:12] = 1
    session.flush()
    assert in_table(session)[0] == "0.064 (partial)"


@pytest.mark.parametrize(
    "content", ["", "[]", '{"label_before": 1}', '{"label_before": 1, "label_after": -1}']
)
def test_a_damaged_record_counts_as_none(
    session: Session, project: Project, prediction: LabelArray, content: str
) -> None:
    run = project.runs.list()[-1].id
    label = np.zeros(prediction.shape, np.uint8)
    label[5:12, 4:12, 4:12] = 1
    record_acceptance(project, run, CASE, np.zeros_like(label), label)
    (record,) = (project.path / "predictions" / run / "accepted").iterdir()
    assert is_accepted(project, run, CASE, label, prediction)
    record.write_text(content)
    assert not is_accepted(project, run, CASE, label, prediction)
