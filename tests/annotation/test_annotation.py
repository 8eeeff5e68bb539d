"""Slice interpolation, growing and cleaning change only voxels that they may change."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dycon.annotation import coverage, interpolation, morphology, random_walker, regions
from napari_dycon.errors import CancelledError, UserError

ISO = (1.0, 1.0, 1.0)


def make_ball(
    shape: tuple[int, int, int], center: tuple[float, float, float], radius: float
) -> np.ndarray:
    grid = np.indices(shape).astype(float)
    distance = sum((g - c) ** 2 for g, c in zip(grid, center, strict=True))
    return np.asarray(distance <= radius**2)


def compute_dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_ball_comes_back_from_five_slices_in_any_axis(axis: int) -> None:
    truth = make_ball((40, 40, 40), (20, 19, 21), 14)
    label = np.full(truth.shape, 255, np.uint8)
    for number in (7, 13, 20, 26, 32):
        np.moveaxis(label, axis, 0)[number] = np.moveaxis(truth, axis, 0)[number]
    filled, count = interpolation.fill_between(label, [1], axis, ISO)
    assert count == 21
    between = np.moveaxis(filled, axis, 0)[7:33]
    assert compute_dice(between == 1, np.moveaxis(truth, axis, 0)[7:33]) > 0.95
    assert not (between == 255).any()  # both ends were complete, so the rest is background
    assert (np.moveaxis(filled, axis, 0)[:7] == 255).all()


@pytest.mark.parametrize("is_complete", [True, False])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_of_other_planes_do_not_prevent_interpolation(axis: int, is_complete: bool) -> None:
    truth = make_ball((40, 40, 40), (20, 19, 21), 14)
    label = np.full(truth.shape, 255, np.uint8)
    for number in (7, 13, 20, 26, 32):
        np.moveaxis(label, axis, 0)[number] = np.moveaxis(truth, axis, 0)[number]
    for other in (a for a in range(3) if a != axis):
        part, full = (np.moveaxis(array, other, 0)[20] for array in (label, truth))
        part[full | is_complete] = full[full | is_complete]
    filled, _ = interpolation.fill_between(label, [1], axis, ISO)
    between = np.moveaxis(filled, axis, 0)[7:33]
    assert compute_dice(between == 1, np.moveaxis(truth, axis, 0)[7:33]) > 0.95
    assert not (between == 255).any()
    assert np.array_equal(filled[label != 255], label[label != 255])


def test_complete_slices_of_another_plane_may_be_side_by_side() -> None:
    label = np.full((9, 20, 20), 255, np.uint8)
    label[:, 9:12] = 0
    label[2:7, 9:12, 5:15] = 1
    assert not interpolation.has_gaps(label, [1], 0)
    label[[0, 8], 5:15, 5:15] = 1
    filled, count = interpolation.fill_between(label, [1], 0, ISO)
    assert count == 7
    assert (filled[4, 6:9, 7:13] == 1).all()


def test_a_structure_one_voxel_thin_is_interpolated() -> None:
    label = np.full((9, 20, 20), 255, np.uint8)
    label[[0, 1, 7, 8], 10, 5:15] = 1
    filled, count = interpolation.fill_between(label, [1], 0, ISO)
    assert count == 5
    assert (filled[4, 10, 7:13] == 1).all()


def test_an_oblique_tube_is_interpolated_completely() -> None:
    label = np.full((11, 40, 40), 255, np.uint8)
    label[0][make_ball((1, 40, 40), (0, 20, 8), 4)[0]] = 1
    label[10][make_ball((1, 40, 40), (0, 20, 32), 4)[0]] = 1  # no overlap at all
    filled, _ = interpolation.fill_between(label, [1], 0, ISO)
    middle = filled[5] == 1
    assert 35 <= middle.sum() <= 65  # a disc of radius 4 has 49
    assert np.allclose(np.argwhere(middle).mean(axis=0), (20, 20), atol=1)
    assert not (filled[5] == 0).any()  # only strokes were there: nothing is known of the rest


def test_spacing_within_a_slice_is_considered() -> None:
    label = np.full((3, 30, 30), 255, np.uint8)
    label[0, 14:16, 5:25] = 1
    label[2, 5:25, 14:16] = 1
    cubes, _ = interpolation.fill_between(label, [1], 0, (1.0, 1.0, 1.0))
    flat, _ = interpolation.fill_between(label, [1], 0, (1.0, 1.0, 4.0))
    assert not np.array_equal(cubes[1], flat[1])


def test_filling_overwrites_no_label() -> None:
    label = np.full((5, 20, 20), 255, np.uint8)
    label[0, 5:15, 5:15] = label[4, 5:15, 5:15] = 1
    label[2, 8:10, 8:10] = 2
    label[2, 12, 12] = 0
    filled, count = interpolation.fill_between(label, [1], 0, ISO)
    assert count == 3
    annotated = label != 255
    assert np.array_equal(filled[annotated], label[annotated])
    assert filled[2, 6, 6] == 1


def test_a_complete_slice_without_the_structure_ends_interpolation() -> None:
    label = np.full((7, 20, 20), 255, np.uint8)
    label[0, 5:15, 5:15] = label[6, 5:15, 5:15] = 1
    label[3] = 0
    filled, count = interpolation.fill_between(label, [1], 0, ISO)
    assert count == 2
    assert not (filled[3] == 1).any()  # marked as empty
    for tapered in (1, 5):  # halfway to it
        assert 0 < (filled[tapered] == 1).sum() < (filled[0] == 1).sum()
    for open_slice in (2, 4):  # unknown
        assert (filled[open_slice] == 255).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_structure_tapers_off_towards_an_empty_slice(axis: int) -> None:
    shape = [30, 30, 30]
    shape[axis] = 12
    label = np.full(shape, 255, np.uint8)
    slices = np.moveaxis(label, axis, 0)
    slices[2, 5:25, 5:25], slices[10] = 1, 0
    filled, count = interpolation.fill_between(label, [1], axis, ISO)
    areas = (np.moveaxis(filled, axis, 0) == 1).sum(axis=(1, 2))
    assert areas[:2].sum() == 0  # nothing is marked on that side
    assert areas[2] >= areas[3] > areas[4] > areas[5] > 0
    assert areas[6:].sum() == 0
    assert count == 3
    assert not (filled == 0)[label != 0].any()  # no background is invented
    again, n_more = interpolation.fill_between(filled, [1], axis, ISO)
    assert n_more == 0
    assert np.array_equal(again, filled)


def test_a_far_empty_slice_does_not_draw_a_structure_out() -> None:
    label = np.full((60, 20, 20), 255, np.uint8)
    label[0], label[50, 8:13, 8:13] = 0, 1
    filled, _ = interpolation.fill_between(label, [1], 0, ISO)
    assert np.flatnonzero((filled == 1).any(axis=(1, 2))).min() >= 47


def test_interpolation_tells_each_slice_and_can_be_stopped_there() -> None:
    label = np.full((9, 20, 20), 255, np.uint8)
    label[[0, 8], 5:15, 5:15] = 1
    before, told = label.copy(), []

    def report(done: int, total: int, name: str) -> None:
        told.append((done, total, name))
        if done == 3:
            raise CancelledError

    with pytest.raises(CancelledError):
        interpolation.fill_between(label, [1], 0, ISO, report)
    assert told[-1] == (3, 7, "slice 3 of 7")
    assert np.array_equal(label, before)


def test_several_structures_share_a_slice_without_overlap() -> None:
    truth = np.zeros((9, 30, 30), np.uint8)
    for number in range(9):
        truth[number, 5:15, 5 + number : 25] = 1
        truth[number, 15:25, 5 + number : 25] = 2
    label = np.full(truth.shape, 255, np.uint8)
    label[[0, 8]] = truth[[0, 8]]
    filled, _ = interpolation.fill_between(label, [1, 2], 0, ISO)
    for value in (0, 1, 2):
        assert compute_dice(filled == value, truth == value) > 0.95
    only, _ = interpolation.fill_between(label, [1], 0, ISO)
    assert not (only[1:8] == 0).any()  # structure 2 is still to come in these slices


def test_copying_a_slice_fills_only_unlabeled_voxels() -> None:
    label = np.full((4, 10, 10), 255, np.uint8)
    label[1, 2:8, 2:8] = 1
    label[2, 2:4] = 2
    copied = interpolation.copy_slice(label, 1, 0, 1, 2)
    assert (copied[2, 4:8, 2:8] == 1).all()
    assert (copied[2, 2:4] == 2).all()
    assert np.array_equal(copied[1], label[1])


def test_strokes_grow_to_the_edge_of_their_structure() -> None:
    truth = make_ball((40, 44, 48), (20, 22, 24), 11)
    image = truth * 100.0 + np.random.default_rng(0).normal(0, 12, truth.shape)
    label = np.full(truth.shape, 255, np.uint8)
    label[20, 20:24, 20:28] = 1
    box = random_walker.find_scribble_box(label, ISO, 16)
    grown = random_walker.grow(image, label, box, ISO)
    assert compute_dice(grown.label == 1, truth) > 0.95
    assert grown.voxels == int((grown.label == 1).sum()) - 32
    assert not (grown.label == 0).any()


def test_background_strokes_separate_two_similar_structures() -> None:
    image = np.zeros((20, 30, 60))
    image[5:15, 8:22, 8:28] = image[5:15, 8:22, 32:52] = 100.0
    label = np.full(image.shape, 255, np.uint8)
    label[10, 14:16, 15:20] = 1
    label[10, 14:16, 40:45] = 2
    label[10, 15, 30] = 0
    grown = random_walker.grow(image, label, (slice(0, 20), slice(0, 30), slice(0, 60)), ISO).label
    assert (grown[7:13, 10:20, 10:26] == 1).all()
    assert (grown[7:13, 10:20, 34:50] == 2).all()


def test_a_large_box_is_solved_coarsely_and_keeps_all_strokes() -> None:
    shape = (120, 120, 120)
    truth = make_ball(shape, (60, 60, 60), 30)
    label = np.full(shape, 255, np.uint8)
    label[60, 60, 55:66] = 1
    box = (slice(10, 110), slice(10, 110), slice(10, 110))
    assert random_walker._choose_downsampling((100, 100, 100), ISO) != (1, 1, 1)
    grown = random_walker.grow(truth * 100.0, label, box, ISO).label
    assert (
        compute_dice(grown == 1, truth) > 0.9
    )  # cells of two voxels: half a cell of a ball's surface


def test_growing_without_a_stroke_raises_an_error_with_advice() -> None:
    label = np.full((10, 10, 10), 255, np.uint8)
    with pytest.raises(UserError, match="Paint part of the structure"):
        random_walker.find_scribble_box(label, ISO, 5)


def test_borders_filled_far_apart_follow_the_scan() -> None:
    """A ball that bulges between two slices: shapes alone cut it off, the scan shows it."""
    truth = make_ball((41, 60, 60), (20, 30, 30), 17)
    image = truth * 100.0 + np.random.default_rng(0).normal(0, 10, truth.shape)
    label = np.full(truth.shape, 255, np.uint8)
    for number in (0, 8, 32, 40):
        label[number] = truth[number]
    filled, _ = interpolation.fill_between(label, [1], 0, ISO)
    followed = random_walker.refine_to_edges(image, label, filled, 0, ISO)
    assert compute_dice(followed == 1, truth) > compute_dice(filled == 1, truth) + 0.03
    annotated = label != 255
    assert np.array_equal(followed[annotated], label[annotated])
    assert not (followed[8:33] == 255).any()  # finished slices stay finished
    near = random_walker.refine_to_edges(
        image, label, filled, 0, (0.2, 1.0, 1.0)
    )  # 4.8 mm apart at most
    assert np.array_equal(near, filled)


def test_following_edges_keeps_incomplete_slices_incomplete() -> None:
    truth = make_ball((21, 40, 40), (10, 20, 20), 12)
    label = np.full(truth.shape, 255, np.uint8)
    for number in (2, 18):
        label[number][truth[number]] = 1  # strokes alone
    filled, _ = interpolation.fill_between(label, [1], 0, ISO)
    followed = random_walker.refine_to_edges(truth * 100.0, label, filled, 0, ISO)
    assert compute_dice(followed == 1, truth) > compute_dice(filled == 1, truth)
    assert not (followed == 0).any()


def test_smoothing_removes_noise_and_keeps_the_volume() -> None:
    truth = make_ball((40, 40, 40), (20, 20, 20), 12)
    rough = truth ^ (
        (np.random.default_rng(0).random(truth.shape) < 0.02)
        & make_ball(truth.shape, (20, 20, 20), 14)
    )
    label = np.where(rough, 1, 0).astype(np.uint8)
    label[0, 0, 0] = 2
    smoothed = morphology.smooth(label, 1, ISO, 1.5)
    assert compute_dice(smoothed == 1, truth) > compute_dice(rough, truth)
    assert abs(int((smoothed == 1).sum()) / int(rough.sum()) - 1) < 0.05
    assert smoothed[0, 0, 0] == 2


def test_holes_are_filled_but_not_over_another_structure() -> None:
    label = np.zeros((20, 20, 20), np.uint8)
    label[4:16, 4:16, 4:16] = 1
    label[8:12, 8:12, 8:12] = 255
    label[9, 9, 9] = 2
    filled = morphology.fill_holes(label, 1)
    assert (filled[8:12, 8:12, 8:12] != 255).all()
    assert filled[9, 9, 9] == 2


def test_only_the_largest_component_is_kept() -> None:
    label = np.full((20, 20, 20), 255, np.uint8)
    label[2:10, 2:10, 2:10] = 1
    label[15:17, 15:17, 15:17] = 1
    label[18, 18, 18] = 3
    kept = morphology.keep_largest_component(label, 1)
    assert (kept == 1).sum() == 512
    assert (kept[15:17, 15:17, 15:17] == 0).all()
    assert kept[18, 18, 18] == 3
    assert (morphology.keep_largest_component(label, 7) == label).all()


def test_annotated_slices_are_found_across_every_axis() -> None:
    label = np.full((4, 5, 6), 255, np.uint8)
    label[2] = 0
    label[2, 1, 1] = 1
    assert coverage.annotated_fraction(label, 0).tolist() == [0, 0, 1, 0]
    assert coverage.annotated_fraction(label, 1).tolist() == [0.25] * 5


def test_a_rectangle_contains_the_voxels_whose_centers_are_inside() -> None:
    shape = (10, 20, 30)
    drawn = [(4.0, 2.4, 5.6), (4.0, 2.4, 9.0), (4.0, 8.9, 9.0), (4.0, 8.9, 5.6)]
    assert regions.rectangle_to_box(drawn, 0, shape) == (slice(4, 5), slice(3, 9), slice(6, 10))
    over = [(-3.0, 7.2, 28.0), (99.0, 7.2, 44.0)]
    assert regions.rectangle_to_box(over, 1, shape) == (slice(0, 10), slice(7, 8), slice(28, 30))
    with pytest.raises(UserError, match="rectangle is too small"):
        regions.rectangle_to_box([(4, 2.0, 5.0), (4, 2.3, 9.0)], 0, shape)
    with pytest.raises(UserError, match="outside the scan"):
        regions.rectangle_to_box([(4, 22.0, 5.0), (4, 29.0, 9.0)], 0, shape)


def test_a_first_rectangle_has_the_thickness_of_its_strokes_plus_a_margin() -> None:
    label = np.full((40, 20, 30), 255, np.uint8)
    label[18:21, 8:12, 8:12] = 1
    label[30] = 0  # background is no stroke of a structure
    label[35, 8:12, 20:25] = 1  # beside the rectangle
    rectangle = (slice(19, 20), slice(5, 15), slice(5, 15))
    spacing = (2.0, 1.0, 1.0)
    assert regions.extrude_rectangle(rectangle, 0, label, spacing, 6.0)[0] == slice(15, 24)
    assert regions.extrude_rectangle(rectangle, 0, label, spacing, 200.0)[0] == slice(0, 40)
    nothing = np.full(label.shape, 255, np.uint8)
    assert regions.extrude_rectangle(rectangle, 0, nothing, spacing, 6.0)[0] == slice(16, 23)


def test_a_further_rectangle_reshapes_or_extends_the_box() -> None:
    box = (slice(10, 20), slice(5, 15), slice(5, 15))
    inside = regions.update_box(box, (slice(12, 13), slice(2, 8), slice(3, 9)), 0)
    assert inside == (slice(10, 20), slice(2, 8), slice(3, 9))
    beyond = regions.update_box(box, (slice(30, 31), slice(2, 8), slice(7, 19)), 0)
    assert beyond == (slice(10, 31), slice(2, 15), slice(5, 19))


def test_growing_stays_inside_a_box_even_of_one_slice() -> None:
    truth = make_ball((40, 44, 48), (20, 22, 24), 11)
    label = np.full(truth.shape, 255, np.uint8)
    label[20, 20:24, 20:28] = 1
    for box in (
        (slice(14, 40), slice(5, 24), slice(5, 44)),
        (slice(20, 21), slice(5, 40), slice(5, 44)),
    ):
        grown = random_walker.grow(truth * 100.0, label, box, ISO).label
        inside = np.zeros(truth.shape, bool)
        inside[box] = truth[box]
        assert compute_dice(grown == 1, inside) > 0.95
    with pytest.raises(UserError, match="move the box"):
        random_walker.grow(truth * 100.0, label, (slice(0, 9), slice(0, 9), slice(0, 9)), ISO)
