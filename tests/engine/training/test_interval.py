"""Validation and previews stay within a small share of a run's time, on a clock of the test."""

from __future__ import annotations

import pytest

from napari_dycon.engine.training.interval import MAX_JOINT_FRACTION, Interval, JointTime


def simulate_shares(
    preview_s: float, validation_s: float, run_s: float, step_s: float, *, is_planned: bool
) -> tuple[list[float], int]:
    """Share of a run's time that both tasks took after each of them, and how many previews."""
    joint, planned_s = JointTime(), run_s if is_planned else None
    previews = Interval(15.0, MAX_JOINT_FRACTION / 2, joint, first_delay_s=0.0)
    validations = Interval(60.0, MAX_JOINT_FRACTION / 2, joint)
    now, made, shares = 0.0, 0, []
    while now < run_s:
        now += step_s
        if previews.is_due(now, preview_s, planned_s):
            now += preview_s
            made += 1
            previews.record(now, preview_s)
            shares.append(joint.spent_s / now)
        if validations.is_due(now, validation_s, planned_s):
            now += validation_s
            validations.record(now, validation_s)
            shares.append(joint.spent_s / now)
    return shares, made


@pytest.mark.parametrize("is_planned", [False, True])
@pytest.mark.parametrize(
    ("preview_s", "validation_s", "run_s"),
    [(0.2, 1.0, 600.0), (2.0, 20.0, 7200.0), (8.0, 60.0, 36_000.0), (0.01, 0.05, 1800.0)],
)
def test_tasks_take_less_than_a_tenth_of_a_run_at_any_time(
    preview_s: float, validation_s: float, run_s: float, is_planned: bool
) -> None:
    shares, made = simulate_shares(preview_s, validation_s, run_s, 0.5, is_planned=is_planned)
    assert max(shares) < 0.1
    assert made >= 2


def test_the_first_task_is_not_started_if_it_would_take_too_long() -> None:
    shares, _ = simulate_shares(148.0, 200.0, 240.0, 10.0, is_planned=True)
    assert shares == []
    interval = Interval(15.0, 0.05, first_delay_s=0.0)
    assert not interval.is_due(60.0, 8.0, 240.0)  # more than a tenth of the time until now
    assert interval.is_due(100.0, 8.0, 240.0)
    assert not interval.is_due(100.0, 8.0)  # without a limit it is unknown how long the run lasts
    assert interval.is_due(160.0, 8.0)


def test_the_first_preview_is_immediate_and_the_next_after_its_interval() -> None:
    interval = Interval(15.0, 0.01, first_delay_s=0.0)
    assert interval.is_due(10.0, 0.1)
    interval.record(10.1, 0.1)
    assert not interval.is_due(19.9, 0.1)  # its period has not passed
    assert interval.is_due(25.2, 0.1)
    assert not interval.is_due(25.2, 0.2)


def test_a_task_waits_for_its_interval() -> None:
    interval = Interval(60.0, 1.0)
    assert not interval.is_due(100.0, 1.0)  # a resumed run begins late on its clock
    assert not interval.is_due(159.0, 1.0)
    assert interval.is_due(160.0, 1.0)
