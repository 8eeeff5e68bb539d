"""Elapsed time and progress of a run, on a clock of the test."""

from __future__ import annotations

import pytest

from napari_dycon.engine.config import UNLIMITED_STEPS, make_config
from napari_dycon.engine.training.clock import TrainingClock


class FakeTime:
    """A source of time that a test sets."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


def test_elapsed_time_continues_after_a_resume(fake_time: FakeTime) -> None:
    clock = TrainingClock(100, None, elapsed_s=30.0, now=fake_time)
    fake_time.seconds += 5.0
    assert clock.elapsed() == 35.0


def test_pauses_and_nested_pauses_do_not_count(fake_time: FakeTime) -> None:
    clock = TrainingClock(100, None, now=fake_time)
    fake_time.seconds += 2.0
    with clock.paused():
        fake_time.seconds += 50.0
        with clock.paused():
            fake_time.seconds += 7.0
        fake_time.seconds += 1.0
    fake_time.seconds += 3.0
    assert clock.elapsed() == 5.0


def test_a_pause_that_ends_with_an_error_does_not_count(fake_time: FakeTime) -> None:
    clock = TrainingClock(100, None, now=fake_time)
    with pytest.raises(OSError), clock.paused():  # noqa: PT011, PT012
        fake_time.seconds += 50.0
        raise OSError
    assert clock.elapsed() == 0.0


def test_progress_follows_steps_or_time_whichever_is_further(fake_time: FakeTime) -> None:
    clock = TrainingClock(200, 100.0, now=fake_time)
    assert clock.progress(50) == 0.25
    fake_time.seconds += 40.0
    assert clock.progress(50) == 0.4
    fake_time.seconds += 80.0
    assert clock.progress(50) == 1.0
    assert clock.progress(300) == 1.0


def test_without_a_time_limit_steps_alone_count(fake_time: FakeTime) -> None:
    clock = TrainingClock(200, None, now=fake_time)
    fake_time.seconds += 1e6
    assert clock.progress(50) == 0.25


def test_a_time_limit_alone_ends_a_run() -> None:
    assert make_config("dycon", time_limit=60.0).steps == UNLIMITED_STEPS
    assert make_config("dycon", time_limit=60.0, steps=50).steps == 50
    assert make_config("dycon").steps < UNLIMITED_STEPS
