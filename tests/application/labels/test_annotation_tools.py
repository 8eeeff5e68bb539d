"""Annotation tools: one undo step each, concurrent painting is kept, proposals need acceptance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from napari_dycon.application.slice_profile import compute_slice_profile
from napari_dycon.application.task_runner import InlineTaskRunner
from napari_dycon.engine.evaluation.label_comparison import (
    ADDED,
    MISSED,
    OTHER_STRUCTURE,
    compare_structures,
    difference_map,
)
from napari_dycon.errors import BusyError, UserError
from napari_dycon.project.store import Project
from napari_dycon.session import Session


class LateTaskRunner(InlineTaskRunner):
    """Task runner whose answers wait, while ``is_late``, until the test asks for them."""

    def __init__(self) -> None:
        self.is_late = False
        self.waiting: list[Callable[[], None]] = []

    def submit(self, task: Any, on_done: Any, on_error: Any) -> None:
        if not self.is_late:
            super().submit(task, on_done, on_error)
            return

        def finish() -> None:
            try:
                result = task()
            except Exception as error:
                on_error(error)
            else:
                on_done(result)

        self.waiting.append(finish)


@pytest.fixture
def task_runner() -> LateTaskRunner:
    return LateTaskRunner()


@pytest.fixture
def session(project: Project, task_runner: LateTaskRunner) -> Session:
    made = Session(task_runner)
    made.open_project(project.path)
    made.show_case("scan-3")
    return made


def paint_strokes(session: Session) -> np.ndarray:
    label = session.require_case().label
    label[4, 5:15, 5:13] = 1
    label[12, 5:15, 5:13] = 1
    return label


def test_filling_changes_the_shown_label_and_reports_the_amount(session: Session) -> None:
    label = paint_strokes(session)
    messages: list[tuple[str, str]] = []
    session.message.connect(lambda level, text: messages.append((level, text)))
    session.annotation.fill_between([1], axis=0)
    assert (label[8, 6:14, 6:12] == 1).all()
    assert messages == [("info", "Filled 7 slices: box now 1.30 ml.")]


def test_an_edit_is_one_call_of_the_layers_writer(session: Session) -> None:
    label = paint_strokes(session)
    calls: list[int] = []

    def writer(box: tuple[slice, slice, slice], values: Any) -> None:
        calls.append(int((label[box] != values).sum()))
        label[box] = values

    session.label_writer = writer
    session.annotation.fill_between([1], axis=0)
    assert calls == [560]


def test_strokes_painted_during_a_computation_are_kept(
    session: Session, task_runner: LateTaskRunner
) -> None:
    label = paint_strokes(session)
    task_runner.is_late = True
    session.annotation.fill_between([1], axis=0)
    label[8, 7, 7] = 0
    with pytest.raises(BusyError, match="still running"):
        session.annotation.smooth(1, 1.0)
    task_runner.waiting.pop()()
    assert label[8, 7, 7] == 0
    assert label[8, 8, 8] == 1
    session.annotation.fill_holes(1)  # free again
    assert len(task_runner.waiting) == 1


def test_results_for_another_case_are_dropped(
    session: Session, task_runner: LateTaskRunner
) -> None:
    paint_strokes(session)
    task_runner.is_late = True
    session.annotation.fill_between([1], axis=0)
    task_runner.is_late = False
    session.show_case("scan-4")
    task_runner.waiting.pop()()
    assert (session.require_case().label == 255).all()
    session.require_case().label[1, 1, 1] = 1
    session.annotation.keep_largest_component(1)  # not busy for ever


def test_errors_of_a_tool_are_reported_and_leave_it_usable(session: Session) -> None:
    with pytest.raises(UserError, match="Nothing to interpolate"):
        session.annotation.fill_between([1], axis=0)
    with pytest.raises(UserError, match="Paint part of the structure"):
        session.annotation.grow()
    with pytest.raises(UserError, match="does not contain this structure"):
        session.annotation.copy_slice(1, 0, 3, 4)
    with pytest.raises(UserError, match="no neighboring slice"):
        session.annotation.copy_slice(1, 0, -1, 0)
    assert session.annotation.operation == ""


def test_the_message_names_the_plane_in_which_interpolation_is_possible(session: Session) -> None:
    paint_strokes(session)
    with pytest.raises(UserError, match=r"between coronal slices\. Scroll in the axial view"):
        session.annotation.fill_between([1], axis=1)
    session.require_case().label[12] = 255
    with pytest.raises(UserError, match="in two sagittal slices with unannotated slices"):
        session.annotation.fill_between([1], axis=2)


def test_growing_changes_no_label_until_accepted(session: Session) -> None:
    view = session.require_case()
    truth = view.image.array > 140  # the bright box of 80 above a noise of 10
    center = tuple(int(c) for c in np.argwhere(truth).mean(axis=0).round())
    view.label[center[0], center[1] - 1 : center[1] + 2, center[2] - 1 : center[2] + 2] = 1
    shown: list[Any] = []
    session.annotation.proposal_changed.connect(shown.append)
    session.annotation.grow(margin_mm=8)
    assert (view.label == 1).sum() == 9
    assert shown[-1].sum() > 300
    session.annotation.discard_proposal()
    assert shown[-1] is None
    with pytest.raises(UserError, match="no proposal"):
        session.annotation.accept_proposal()
    session.annotation.grow(margin_mm=8)
    session.annotation.accept_proposal()
    grown = view.label == 1
    assert 2 * (grown & truth).sum() / (grown.sum() + truth.sum()) > 0.9


def test_a_proposal_disappears_with_its_case(session: Session) -> None:
    session.require_case().label[9:11, 9:11, 9:11] = 1
    session.annotation.grow()
    session.show_case("scan-4")
    assert not session.annotation.has_proposal


def test_growing_stays_in_the_box_of_its_case(session: Session) -> None:
    view, drawing = session.require_case(), session.annotation
    truth = view.image.array > 140
    z, y, x = (int(c) for c in np.argwhere(truth).mean(axis=0).round())
    view.label[z, y - 1 : y + 2, x - 1 : x + 2] = 1
    reported: list[Any] = []
    drawing.roi_changed.connect(reported.append)
    box = drawing.draw_roi([(z, y - 6, x - 6), (z, y, x + 6)], 0, margin_mm=1)
    assert box[0] == slice(z - 1, z + 2)
    assert box[1].stop == y + 1
    assert reported == [box]
    drawing.grow()
    drawing.accept_proposal()
    grown = view.label == 1
    assert grown.sum() > 40
    grown[box] = False
    assert grown.sum() == 3  # the part of the stroke that was painted beyond the box
    drawing.draw_roi([(z + 5, y - 6, x - 6), (z + 5, y, x + 6)], 0)
    assert drawing.roi is not None
    assert drawing.roi[0] == slice(z - 1, z + 6)
    with pytest.raises(UserError, match="extends beyond the scan"):
        drawing.set_roi((slice(0, 999), slice(0, 4), slice(0, 4)))
    session.show_case("scan-3")  # read again
    assert drawing.roi is not None
    session.show_case("scan-4")
    assert drawing.roi is None
    assert reported[-1] is None


def test_a_picked_range_contains_the_structure_and_excludes_its_surroundings(
    session: Session,
) -> None:
    view = session.require_case()
    center = [int(c) for c in np.argwhere(view.image.array > 150).mean(axis=0).round()]
    low, high = session.annotation.pick_intensity_range(center)
    assert low > 120 < high
    assert session.annotation.paint_range == (low, high)
    with pytest.raises(UserError, match="outside the scan"):
        session.annotation.pick_intensity_range((99, 0, 0))
    with pytest.raises(UserError, match="is empty"):
        session.annotation.set_paint_range((3.0, 1.0))
    session.annotation.set_paint_range(None)
    assert session.annotation.paint_range is None


def write_prediction(session: Session, mask: np.ndarray, spots: list[tuple[int, int, int]]) -> None:
    project = session.require_project()
    run = project.runs.list()[0] if project.runs.list() else project.runs.create("dycon", {})
    uncertainty = np.full(mask.shape, 0.01, np.float32)
    for number, (d, h, w) in enumerate(spots):
        uncertainty[d : d + 2, h : h + 2, w : w + 2 + number] = 0.9
    project.predictions.write(run.id, session.require_case().id, mask, uncertainty, uncertainty)
    session.show_case(session.require_case().id)


def paint_two_boxes(session: Session) -> np.ndarray:
    mask = np.zeros(session.require_case().image.shape, np.uint8)
    mask[2:6, 2:6, 2:6] = 1
    mask[10:14, 10:14, 10:14] = 1
    return mask


def test_visited_regions_are_remembered_across_cases(session: Session) -> None:
    mask = paint_two_boxes(session)
    write_prediction(session, mask, [(2, 2, 2), (8, 8, 2), (15, 15, 5)])
    assert session.review.hotspot_progress() == (0, 3, 0)
    first, second = session.next_uncertain(), session.next_uncertain()
    assert session.review.hotspot_progress() == (2, 3, 2)
    assert session.previous_uncertain() == first
    session.show_case("scan-4")
    session.show_case("scan-3")
    assert session.review.hotspot_progress() == (0, 3, 2)
    third = session.next_uncertain()
    assert third not in (first, second)
    assert session.next_uncertain() == first  # all were seen


def test_accepting_a_slice_or_component_keeps_the_rest(session: Session) -> None:
    mask = paint_two_boxes(session)
    write_prediction(session, mask, [])
    label = session.require_case().label
    assert session.accept_prediction(slice_=(1, 3)) == mask[:, 3].size
    assert np.array_equal(label[:, 3], mask[:, 3])
    assert (label[:, 7] == 255).all()
    changed = session.accept_prediction(component=(11, 11, 11))
    assert changed == 64
    assert (label[10:14, 10:14, 10:14] == 1).all()
    assert label[2, 2, 2] == 255
    with pytest.raises(UserError, match="Nothing is predicted here"):
        session.accept_prediction(component=(8, 8, 8))
    with pytest.raises(UserError, match="Nothing is predicted here"):
        session.accept_prediction(component=(99, 8, 8))


def test_the_comparison_counts_only_annotated_voxels() -> None:
    label = np.full((4, 10, 10), 255, np.uint8)
    label[1] = 0
    label[1, 2:6, 2:6] = 1
    prediction = np.zeros(label.shape, np.uint8)
    prediction[:, 2:6, 4:8] = 1
    prediction[3] = 2
    one, two = compare_structures(label, prediction, [1, 2], (2.0, 1.0, 1.0))
    assert one.dice == pytest.approx(0.5)
    assert one.label_ml == pytest.approx(16 * 0.002)
    assert one.prediction_ml == pytest.approx(48 * 0.002)
    assert (two.label_ml, two.dice) == (None, None)
    assert compare_structures(label, None, [1], (1, 1, 1))[0].prediction_ml is None
    parts = difference_map(label, prediction)
    assert (parts[1, 3, 2], parts[1, 3, 7], parts[0, 3, 5]) == (MISSED, ADDED, ADDED)
    label[1, 3, 5] = 2
    assert difference_map(label, prediction)[1, 3, 5] == OTHER_STRUCTURE


def test_the_profile_is_highest_where_the_network_is_most_uncertain() -> None:
    label = np.full((5, 6, 7), 255, np.uint8)
    label[2] = 0
    uncertainty = np.zeros(label.shape, np.float32)
    uncertainty[3, :3] = 0.8
    uncertainty[1, 0] = 0.8
    profile = compute_slice_profile(label, uncertainty, 0)
    assert profile.curve is not None
    assert profile.curve.round(3).tolist() == [0, 0.333, 0, 1, 0]
    assert profile.annotated_fractions.tolist() == [0, 0, 1, 0, 0]
    assert compute_slice_profile(label, None, 1).uncertainty is None
