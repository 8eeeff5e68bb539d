"""The plan of a run's time, on a clock and with durations of the test."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers.tiny_runs import TINY

from napari_dycon.engine.checkpoints.model_file import TrainedModel
from napari_dycon.engine.config import UNLIMITED_STEPS, make_config
from napari_dycon.engine.data.cases import LabeledCase, UnlabeledCase
from napari_dycon.engine.data.preparation import TrainingData
from napari_dycon.engine.inference.prediction_effort import (
    Effort,
    PredictionTimer,
    count_windows,
    reduce_effort,
)
from napari_dycon.engine.network import build_network
from napari_dycon.engine.training.clock import TrainingClock
from napari_dycon.engine.training.interval import JointTime
from napari_dycon.engine.training.time_plan import MIN_STEPS, SAVING_S, TimePlan

SHAPE = (88, 140, 180)


class KnownTimer(PredictionTimer):
    """A timer that does not measure."""

    def __init__(self, window_s: float) -> None:
        super().__init__(torch.device("cpu"), torch.float32)
        self._window_s, self._overhead = window_s, 1.0


class Setting:
    """A plan with a clock, cases and durations that a test chooses."""

    def __init__(
        self,
        limit_s: float | None,
        window_s: float = 0.1,
        n_validation: int = 1,
        steps: int = UNLIMITED_STEPS,
        **settings: Any,
    ) -> None:
        self.seconds = 1000.0
        config = make_config(
            "dycon", **(TINY | {"batch.patch_size": [32, 48, 64], "steps": steps} | settings)
        )
        network = build_network(config, 1, 2)
        self.model = TrainedModel(network, network, config, (1,), 1)
        data = TrainingData(config, (1,), 1, validation=[f"v{i}" for i in range(n_validation)])
        data.labeled = [LabeledCase("a", None, None)] * 3  # type: ignore[arg-type]
        data.unlabeled = [UnlabeledCase("b", None)]  # type: ignore[arg-type]
        self.clock = TrainingClock(steps, limit_s, now=lambda: self.seconds)
        self.plan = TimePlan(self.clock, data, KnownTimer(window_s), None, JointTime())  # type: ignore[arg-type]
        self.plan._shapes = dict.fromkeys(data.validation, SHAPE)


def test_efforts_need_fewer_and_fewer_windows() -> None:
    setting = Setting(None)
    counts = [count_windows(setting.model, SHAPE, effort) for effort in Effort]
    assert counts[1:] == [4 * 4 * 4, 3 * 3 * 3]
    assert counts[0] > 1.5 * counts[1]
    single = reduce_effort(setting.model, Effort.SINGLE)
    assert single.config.inference.tta_scales == (1.0,)
    assert reduce_effort(setting.model, Effort.ENSEMBLE) is setting.model


@pytest.mark.parametrize(
    ("limit_s", "window_s", "n_validation", "expected"),
    [
        (None, 10.0, 50, (Effort.ENSEMBLE, 50)),
        (3600.0, 0.1, 3, (Effort.ENSEMBLE, 3)),
        (240.0, 0.1, 1, (Effort.ENSEMBLE, 1)),
        (240.0, 0.2, 1, (Effort.SINGLE, 1)),
        (240.0, 0.5, 1, (Effort.COARSE, 1)),
        (240.0, 0.1, 4, (Effort.COARSE, 4)),
        (240.0, 0.1, 50, (Effort.COARSE, 5)),
        (240.0, 10.0, 1, (Effort.COARSE, 0)),
        (120.0, 0.5, 1, (Effort.COARSE, 1)),  # beyond its share, but within what a run may exceed
    ],
)
def test_validation_is_reduced_to_its_share(
    limit_s: float | None, window_s: float, n_validation: int, expected: tuple[Effort, int]
) -> None:
    setting = Setting(limit_s, window_s, n_validation)
    plan = setting.plan.plan_running_validation(setting.model)
    assert (plan.effort, plan.n_cases) == expected
    setting.plan.plan_end(setting.model)
    if limit_s:
        assert plan.seconds <= 0.15 * limit_s
        assert setting.clock.training_time_left() >= 0.8 * limit_s


def test_the_end_is_reserved_and_the_last_step_ends_close_to_it() -> None:
    setting = Setting(240.0, 0.01)
    plan, clock = setting.plan, setting.clock
    plan.plan_end(setting.model)
    reserved_s = 240.0 - clock.training_time_left()
    assert SAVING_S < reserved_s < 24.0
    plan.record_step(10.0, has_unlabeled=True)
    setting.seconds += 240.0 - reserved_s - 6.0
    assert not plan.is_training_over(5)
    setting.seconds += 2.0  # another step would end 6 s late, the last one ended 4 s early
    assert plan.is_training_over(5)
    assert not plan.is_training_over(0)  # one step is taken in any case
    assert clock.progress(5) < 1.0
    setting.seconds += 5.0
    assert clock.progress(5) == 1.0


def test_registration_leaves_time_for_steps() -> None:
    setting = Setting(240.0)
    plan = setting.plan
    plan.record_step(1.0, has_unlabeled=False)
    assert plan.registration_limit(is_resumed=False) == pytest.approx(48.0)
    slow = Setting(240.0)
    slow.plan.record_step(10.0, has_unlabeled=False)
    assert slow.plan.registration_limit(is_resumed=False) == pytest.approx(240 - MIN_STEPS * 10)
    slow.plan.record_step(20.0, has_unlabeled=False)
    assert slow.plan.registration_limit(is_resumed=False) < 0
    assert slow.plan.registration_limit(is_resumed=True) == math.inf
    assert Setting(None).plan.registration_limit(is_resumed=False) == math.inf


def test_remaining_time_is_that_of_the_limit_or_of_the_steps() -> None:
    limited = Setting(240.0)
    limited.seconds += 100.0
    assert limited.plan.remaining(0) == 140.0
    by_steps = Setting(None, steps=1000, **{"semi_supervised.start": 0.8})
    assert by_steps.plan.remaining(0) is None
    by_steps.plan.record_step(9.0, has_unlabeled=False)
    for _ in range(10):  # the first step of a process does not count
        by_steps.plan.record_step(1.0, has_unlabeled=False)
    # Steps with unlabeled patches have not been measured: about 2.3 times as long.
    assert by_steps.plan.remaining(500) == pytest.approx(300 + 200 * 7 / 3, abs=0.1)
    by_steps.plan.record_step(3.0, has_unlabeled=True)
    assert by_steps.plan.remaining(500) == pytest.approx(300 + 200 * 3)
    assert by_steps.plan.remaining(1000) == 0.0


def test_the_remaining_time_at_the_end_is_that_of_the_end() -> None:
    setting = Setting(240.0)
    setting.plan.begin_end(12.0)
    remaining = setting.plan.remaining(5)
    assert remaining is not None
    assert 10.0 < remaining <= 12.0
    setting.plan.begin_end(math.inf)
    assert setting.plan.remaining(5) is None


def test_a_window_without_memory_makes_a_prediction_infinitely_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setting = Setting(240.0)
    timer = PredictionTimer(torch.device("cpu"), torch.float32)
    assert timer.estimate(setting.model, SHAPE, Effort.COARSE) == 0.0

    def refuse(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(type(setting.model.student), "forward_with_bottleneck", refuse)
    timer.measure(setting.model)
    assert timer.estimate(setting.model, SHAPE, Effort.COARSE) == math.inf


def test_the_timer_learns_from_finished_predictions() -> None:
    model = Setting(None).model
    timer = KnownTimer(0.1)
    for _ in range(6):
        timer.record(model, SHAPE, Effort.COARSE, 5.4)  # twice the time of 27 windows
    assert timer.estimate(model, SHAPE, Effort.COARSE) == pytest.approx(5.4, rel=0.03)
