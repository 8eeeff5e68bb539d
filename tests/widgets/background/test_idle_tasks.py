"""Low-priority tasks run while the user pauses."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from napari_dycon.core.counting import PART_VOXELS, count_values
from napari_dycon.widgets.background import interaction
from napari_dycon.widgets.background.task_runner import NapariTaskRunner

pytestmark = pytest.mark.gui


@pytest.fixture
def runner(qapp: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[NapariTaskRunner]:
    monkeypatch.setattr(interaction, "PAUSE_S", 0.3)
    runner = NapariTaskRunner()
    yield runner
    runner.close()


def fail(error: Exception) -> None:
    raise error


def test_a_task_waits_for_a_pause(runner: NapariTaskRunner, qtbot: Any) -> None:
    ends: list[float] = []
    runner.interactions.note()
    start = time.monotonic()
    runner.submit_when_idle("key", time.monotonic, ends.append, fail)
    assert not runner.is_idle
    qtbot.waitUntil(lambda: runner.is_idle)
    assert ends[0] - start >= 0.29


def test_without_interaction_it_runs_at_once(runner: NapariTaskRunner, qtbot: Any) -> None:
    ends: list[float] = []
    start = time.monotonic()
    runner.submit_when_idle("key", time.monotonic, ends.append, fail)
    qtbot.waitUntil(lambda: runner.is_idle)
    assert ends[0] - start < 0.29


def test_a_user_who_never_pauses_is_not_waited_for(
    runner: NapariTaskRunner, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_dycon.widgets.background.idle_tasks.MAX_WAIT_S", 0.5)
    done: list[int] = []
    runner.interactions.note()
    runner.submit_when_idle("key", lambda: 1, done.append, fail)

    def has_ended() -> bool:
        runner.interactions.note()
        return bool(done)

    qtbot.waitUntil(has_ended, timeout=10_000)


def test_newer_tasks_replace_older_ones(runner: NapariTaskRunner, qtbot: Any) -> None:
    release, started = threading.Event(), threading.Event()
    done: list[str] = []

    def run_long() -> str:
        started.set()
        release.wait(10)
        return "running"

    runner.submit_when_idle("key", run_long, done.append, fail)
    qtbot.waitUntil(started.is_set)
    runner.submit_when_idle("key", lambda: "waiting", done.append, fail)
    runner.submit_when_idle("other", lambda: "other", done.append, fail)
    runner.submit_when_idle("key", lambda: "last", done.append, fail)
    qtbot.wait(50)
    assert done == []  # one at a time
    release.set()
    qtbot.waitUntil(lambda: runner.is_idle)
    assert done == ["last", "other"]


def test_an_error_is_reported_and_the_next_task_runs(runner: NapariTaskRunner, qtbot: Any) -> None:
    errors: list[Exception] = []
    done: list[int] = []

    def divide() -> float:
        return 1 / 0

    runner.submit_when_idle("first", divide, done.append, errors.append)
    runner.submit_when_idle("second", lambda: 2, done.append, fail)
    qtbot.waitUntil(lambda: runner.is_idle)
    assert [type(error) for error in errors] == [ZeroDivisionError]
    assert done == [2]


def test_a_running_count_pauses(runner: NapariTaskRunner, qtbot: Any) -> None:
    label = np.ones(20 * PART_VOXELS, np.uint8)
    has_started = threading.Event()
    done: list[Any] = []

    def count() -> Any:
        has_started.set()
        counts = [count_values(label, 2)]
        while not has_continued.is_set():  # the user draws before all of it is counted
            counts.append(count_values(label, 2))
        return counts

    has_continued = threading.Event()
    runner.submit_when_idle("key", count, done.append, fail)
    qtbot.waitUntil(has_started.is_set)
    runner.interactions.note()
    has_continued.set()
    start = time.monotonic()
    qtbot.waitUntil(lambda: bool(done))
    assert time.monotonic() - start >= 0.2
    assert all(counts[1] == label.size for counts in done[0])


def test_nothing_waits_after_the_end(runner: NapariTaskRunner, qtbot: Any) -> None:
    done: list[int] = []
    runner.interactions.note()
    runner.submit_when_idle("key", lambda: 1, done.append, fail)
    runner.close()
    qtbot.wait(400)
    assert done == []
    assert runner.is_idle
