"""Validation and previews stay within a small share of a run's time, on a clock of the test."""

from __future__ import annotations

import pytest

from napari_dycon.engine.training.interval import Interval
from napari_dycon.engine.training.preview import PREVIEW_TIME_FRACTION
from napari_dycon.engine.training.validation import VALIDATION_TIME_FRACTION


def simulate_share(
    preview_s: float, validation_s: float, run_s: float, step_s: float
) -> tuple[float, int]:
    """Share of a run's time that both tasks took, and how many previews there were."""
    previews = Interval(15.0, PREVIEW_TIME_FRACTION, first_delay_s=0.0)
    validations = Interval(60.0, VALIDATION_TIME_FRACTION)
    now = spent = 0.0
    made = 0
    while now < run_s:
        now += step_s
        if previews.is_due(now):
            now += preview_s
            spent += preview_s
            made += 1
            previews.record(now, preview_s)
        if validations.is_due(now):
            now += validation_s
            spent += validation_s
            validations.record(now, validation_s)
    return spent / now, made


@pytest.mark.parametrize(
    ("preview_s", "validation_s", "run_s"),
    [(0.2, 1.0, 600.0), (2.0, 20.0, 7200.0), (8.0, 60.0, 36_000.0), (0.01, 0.05, 1800.0)],
)
def test_tasks_take_less_than_three_percent_of_a_run(
    preview_s: float, validation_s: float, run_s: float
) -> None:
    found, made = simulate_share(preview_s, validation_s, run_s, 0.5)
    assert found < 0.03
    assert made >= 2


def test_the_first_preview_is_immediate_and_the_next_after_its_interval() -> None:
    interval = Interval(15.0, 0.01, first_delay_s=0.0)
    assert interval.is_due(10.0)
    interval.record(10.1, 0.1)
    assert not interval.is_due(25.0)  # its period has passed, but 0.2 s are more than 1 % of 15
    assert interval.is_due(30.1)
    interval.record(30.2, 0.1)
    assert not interval.is_due(40.0)


def test_a_task_waits_for_its_interval() -> None:
    interval = Interval(60.0, 1.0)
    assert not interval.is_due(100.0)  # a resumed run begins late on its clock
    assert not interval.is_due(159.0)
    assert interval.is_due(160.0)
