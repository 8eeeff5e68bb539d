"""Curves of runs contain each step once, also after a resume."""

from __future__ import annotations

from typing import Any

import pytest

from napari_dycon.project.runs.events import StartedEvent, StepEvent

pytestmark = pytest.mark.gui


def make_started(run: str, from_step: int) -> StartedEvent:
    return StartedEvent(run=run, resumed_from_step=from_step)


def make_step(number: int, loss: float = 1.0) -> StepEvent:
    return StepEvent(step=number, loss_terms={"supervised": loss})


def test_a_resumed_run_continues_from_its_checkpoint(needs_display: None, qtbot: Any) -> None:
    from napari_dycon.widgets.train.curves import LearningCurves

    curves = LearningCurves()
    qtbot.addWidget(curves)
    curves.add_events([make_started("001", 0), *(make_step(n) for n in (1, 2, 3))])
    curves.add_events([make_started("001", 2), make_step(3, 0.5), make_step(4, 0.4)])
    assert curves.points["loss"] == ([1, 2, 3, 4], [1.0, 1.0, 0.5, 0.4])
    curves.add_events([make_started("002", 0), make_step(1)])
    assert curves.points["loss"][0] == [1]
    curves.add_events(
        [make_started("001", 2), make_step(3)]
    )  # another run's curve is no beginning of it
    assert curves.points["loss"][0] == [3]
