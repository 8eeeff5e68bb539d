"""Schedules of loss weights."""

from __future__ import annotations

import math

import pytest

from napari_dycon.engine.methods.schedules import adaptive_beta, sigmoid_rampup, teacher_threshold
from napari_dycon.engine.training.schedules import ema_decay, learning_rate_factor, rescale_progress


def test_schedules_reach_their_final_values() -> None:
    assert adaptive_beta(0.0) == 5.0
    assert adaptive_beta(1.0) == pytest.approx(0.5)
    assert adaptive_beta(0.5) == pytest.approx(math.sqrt(2.5))
    assert sigmoid_rampup(0.4, 0.4) == pytest.approx(0.1)
    assert sigmoid_rampup(0.0, 0.4) == pytest.approx(0.1 * math.exp(-5))
    assert sigmoid_rampup(1.0, 7.0) == pytest.approx(0.1)
    assert teacher_threshold(0.0) == pytest.approx(0.3 + 0.2 * math.exp(-5))
    assert teacher_threshold(0.5) == pytest.approx(0.3 + 0.2 * math.exp(-5 * 0.25))
    assert [teacher_threshold(p) for p in (1.0, 2.0)] == [pytest.approx(0.5)] * 2
    assert [ema_decay(0), ema_decay(1), ema_decay(10_000)] == [0.0, 0.5, 0.99]
    assert [learning_rate_factor(p, 0.1) for p in (0.05, 0.1)] == [
        pytest.approx(0.51 * 0.95**0.9),
        pytest.approx(0.9**0.9),
    ]
    assert 0 < learning_rate_factor(1.0, 0.1) < 0.01


def test_the_unlabeled_loss_has_its_own_schedule() -> None:
    assert [rescale_progress(p, 0.0) for p in (0.0, 0.3, 1.0)] == [0.0, 0.3, 1.0]  # as published
    assert [rescale_progress(p, 0.8) for p in (0.5, 0.8, 0.9, 1.0)] == [
        0.0,
        0.0,
        pytest.approx(0.5),
        1.0,
    ]
    assert rescale_progress(1.0, 1.0) == 0.0
