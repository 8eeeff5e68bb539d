"""Steps of a change of case run one by one, also in a busy window."""

from __future__ import annotations

import time
from typing import Any

import pytest
from qtpy.QtCore import QObject, QTimer

from napari_dycon.widgets.layers.deferred_steps import MAX_WAIT_S, DeferredSteps

pytestmark = pytest.mark.gui


def test_steps_run_in_order_while_every_iteration_is_busy(qapp: Any, qtbot: Any) -> None:
    parent = QObject()
    busy = QTimer(parent)
    busy.timeout.connect(lambda: time.sleep(4 * MAX_WAIT_S))
    busy.start(0)
    done: list[str] = []
    steps = DeferredSteps(parent)
    steps.start([lambda name=name: done.append(name) for name in "abc"])
    qtbot.waitUntil(lambda: done == ["a", "b", "c"], timeout=5_000)
    busy.stop()


def test_pending_steps_keep_their_place(qapp: Any, qtbot: Any) -> None:
    """Otherwise the last view would never follow a crosshair that is dragged."""
    parent, done = QObject(), []
    steps = DeferredSteps(parent)

    def first() -> None:
        done.append("first")
        if done.count("first") == 1:
            steps.add([first, second])

    def second() -> None:
        done.append("second")

    steps.add([first, second])
    qtbot.waitUntil(lambda: len(done) == 3, timeout=5_000)
    assert done == ["first", "second", "first"]
