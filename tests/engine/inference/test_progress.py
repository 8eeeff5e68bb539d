"""The remaining time of a prediction, estimated from what has been measured."""

from __future__ import annotations

import pytest
from helpers.clock import Clock

from napari_dycon.engine.inference.progress import PredictionProgress, count_passes
from napari_dycon.engine.inference.speed import RELATIVE_SECONDS, count_atlas_work


def do(
    progress: PredictionProgress, clock: Clock, kind: str, amount: float, seconds: float
) -> None:
    with progress.measure(kind, amount):  # type: ignore[arg-type]
        clock.now += seconds


def test_nothing_is_claimed_before_anything_was_measured(clock: Clock) -> None:
    progress = PredictionProgress(2)
    progress.plan("predicting", passes=2)
    event = progress.make_event()
    assert (event.phase, event.remaining_s, event.progress) == ("loading", None, 0.0)
    progress.start("a", "predicting")
    clock.now += 5
    assert progress.make_event().remaining_s is None


def test_the_first_case_is_estimated_from_its_windows(clock: Clock) -> None:
    progress = PredictionProgress(3)
    progress.plan("predicting", passes=2)
    progress.start("a", "predicting")
    with progress.measure("passes", 2):
        clock.now += 10
        progress.report_fraction(0.05)
        assert progress.make_event().remaining_s is None  # too little to tell
        progress.report_fraction(0.25)
        assert progress.make_event().remaining_s == pytest.approx(30 + 2 * 40)


def test_a_quick_pass_tells_the_time_of_all_phases(clock: Clock) -> None:
    progress = PredictionProgress(1)
    progress.plan("preliminary", passes=1)
    progress.set_total(1, "preliminary")
    progress.start("a", "preliminary")
    do(progress, clock, "passes", 1, 10)
    progress.finish()
    progress.add(8)
    progress.plan("references", passes=2, atlases=4)
    progress.plan("predicting", passes=2, atlases=8)
    atlas_s = 10 * RELATIVE_SECONDS["atlases"]
    expected = 8 * (20 + count_atlas_work(4) * atlas_s) + 20 + count_atlas_work(8) * atlas_s
    assert progress.make_event().remaining_s == pytest.approx(expected, abs=0.1)


def test_what_was_measured_replaces_what_was_assumed(clock: Clock) -> None:
    progress = PredictionProgress(1)
    progress.add(2)
    progress.plan("references", passes=2, atlases=4)
    progress.plan("predicting", passes=2, atlases=8)
    progress.start("x", "references")
    do(progress, clock, "atlases", 4, 40)
    do(progress, clock, "passes", 2, 6)
    progress.finish()
    # The second template takes as long as the first; a case has twice the atlases.
    case_s = 40 * count_atlas_work(8) / count_atlas_work(4) + 6
    assert progress.make_event().remaining_s == pytest.approx(46 + case_s, abs=0.1)
    event = progress.start("y", "references")
    assert (event.done, event.total) == (1, 3)
    clock.now += 16
    progressed = progress.make_event()
    assert (progressed.phase, progressed.done, progressed.total) == ("references", 1, 2)
    assert progressed.remaining_s == pytest.approx(46 + case_s, abs=0.1)  # nothing was measured yet
    with progress.measure("atlases", 4):
        clock.now += 16
        remaining_s = progress.make_event().remaining_s
        assert remaining_s == pytest.approx(30 + case_s, abs=0.1)


def test_time_between_scans_counts(clock: Clock) -> None:
    progress = PredictionProgress(3)
    progress.plan("predicting", passes=2)
    for case in ("a", "b"):
        progress.start(case, "predicting")
        do(progress, clock, "passes", 2, 4)
        progress.finish()
        clock.now += 6  # reading and writing
    progress.start("c", "predicting")
    assert progress.make_event().remaining_s == pytest.approx(10)


def test_a_slow_scan_is_never_overdue_and_the_bar_never_goes_back(clock: Clock) -> None:
    progress = PredictionProgress(2)
    progress.plan("predicting", passes=1)
    progress.start("a", "predicting")
    do(progress, clock, "passes", 1, 10)
    progress.finish()
    progress.start("b", "predicting")
    fractions = []
    for _ in range(6):
        clock.now += 10
        event = progress.make_event()
        assert event.remaining_s is not None
        assert event.remaining_s > 0
        fractions.append(event.progress)
    progress.add(20, "predicting")
    fractions.append(progress.make_event().progress)
    assert fractions == sorted(fractions)


def test_scans_that_are_left_out_take_no_time(clock: Clock) -> None:
    progress = PredictionProgress(1)
    progress.add(5)
    progress.plan("references", passes=1)
    progress.plan("predicting", passes=1)
    progress.start("x", "references")
    do(progress, clock, "passes", 1, 10)
    progress.finish()
    progress.add(-4)
    assert progress.make_event().remaining_s == pytest.approx(10)


def test_the_work_of_an_ensemble() -> None:
    assert count_passes((1.0, 0.5), is_mirrored=False) == pytest.approx(1.125)
    assert count_passes((1.0, 0.5), is_mirrored=True) == pytest.approx(2.25)
