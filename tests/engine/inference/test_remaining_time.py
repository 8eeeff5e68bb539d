"""Remaining time of a prediction: each kind of work by its own speed, and recent work most."""

from __future__ import annotations

import pytest
from helpers.clock import Clock

from napari_dycon.engine.inference.progress import PredictionProgress
from napari_dycon.engine.inference.speed import (
    KEPT,
    RELATIVE_SECONDS,
    RecentSpeed,
    count_atlas_work,
    fill_unknown_speeds,
)


def predict_scan(
    progress: PredictionProgress, clock: Clock, phase: str, **seconds: tuple[float, float]
) -> None:
    progress.start("scan", phase)  # type: ignore[arg-type]
    for kind, (amount, duration) in seconds.items():
        with progress.measure(kind, amount):  # type: ignore[arg-type]
            clock.now += duration
    progress.finish()


def remaining(progress: PredictionProgress) -> float:
    value = progress.make_event().remaining_s
    assert value is not None
    return value


def test_the_comparison_of_atlases_does_not_tell_the_speed_of_their_fusion(clock: Clock) -> None:
    progress = PredictionProgress(1)
    progress.plan("checking", registrations=2)
    progress.set_total(1, "checking")
    progress.plan("predicting", passes=1, atlases=4)
    predict_scan(progress, clock, "references", passes=(1, 10), atlases=(4, 40))
    expected = remaining(progress)
    predict_scan(progress, clock, "checking", registrations=(2, 0.1))
    assert remaining(progress) == pytest.approx(50)
    assert expected == pytest.approx(50 + 2 * 10 * RELATIVE_SECONDS["registrations"], rel=0.5)


def test_a_computer_that_becomes_slower_is_believed_after_a_few_scans(clock: Clock) -> None:
    progress = PredictionProgress(12)
    progress.plan("predicting", passes=1)
    for _ in range(6):
        predict_scan(progress, clock, "predicting", passes=(1, 10))
    assert remaining(progress) == pytest.approx(60)
    for _ in range(3):
        predict_scan(progress, clock, "predicting", passes=(1, 30))
    assert remaining(progress) == pytest.approx(3 * 30, rel=0.15)  # a mean of all would say 50


def test_work_of_a_phase_has_its_own_speed(clock: Clock) -> None:
    progress = PredictionProgress(4)
    progress.plan("predicting", passes=1)
    progress.plan("comparing", passes=1)
    progress.set_total(3, "comparing")
    for _ in range(4):
        predict_scan(progress, clock, "predicting", passes=(1, 10))
    assert remaining(progress) == pytest.approx(30)
    predict_scan(progress, clock, "comparing", passes=(1, 2))
    assert remaining(progress) == pytest.approx(4)


def test_the_comparison_at_the_end_counts_from_the_beginning(clock: Clock) -> None:
    progress = PredictionProgress(1)
    progress.plan("predicting", passes=2)
    progress.plan("comparing", passes=1)
    progress.set_total(5, "comparing")
    progress.start("a", "predicting")
    with progress.measure("passes", 2):
        clock.now += 10
        progress.report_fraction(0.5)
        assert remaining(progress) == pytest.approx(10 + 5 * 10)


def test_the_estimate_does_not_jump_when_work_ends(clock: Clock) -> None:
    progress = PredictionProgress(5)
    progress.plan("predicting", passes=1)
    predict_scan(progress, clock, "predicting", passes=(1, 10))
    progress.start("b", "predicting")
    with progress.measure("passes", 1):
        clock.now += 25
        progress.report_fraction(0.999)
        before = remaining(progress)
    assert remaining(progress) == pytest.approx(before, rel=0.05)


def test_recent_measurements_count_most() -> None:
    speed = RecentSpeed().add(1, 10).add(1, 20)
    assert speed.unit_s == pytest.approx((KEPT * 10 + 20) / (KEPT + 1))
    assert RecentSpeed().unit_s is None


def test_unknown_work_is_estimated_from_known_work() -> None:
    assert fill_unknown_speeds({"passes": None, "atlases": None}) is None
    found = fill_unknown_speeds({"passes": 2.0, "atlases": None, "registrations": None})
    assert found is not None
    assert found["passes"] == 2.0
    assert found["atlases"] == pytest.approx(2.0 * RELATIVE_SECONDS["atlases"])


def test_more_atlases_take_more_than_their_share() -> None:
    assert count_atlas_work(0) == 0
    assert count_atlas_work(8) > 2 * count_atlas_work(4)
