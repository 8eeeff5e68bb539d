"""Pause and stop act at once, also during preparation, registration, previews and validation."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers.tiny_runs import TINY
from torch import Tensor

from napari_dycon.engine.atlas import registered_cases
from napari_dycon.engine.atlas.registration import register
from napari_dycon.engine.config import TrainConfig, make_config
from napari_dycon.engine.data import preparation
from napari_dycon.engine.data.preprocessing import prepare_image
from napari_dycon.engine.network import SegmentationNetwork
from napari_dycon.engine.training.interval import Interval
from napari_dycon.engine.training.run import train
from napari_dycon.project.runs.events import Event
from napari_dycon.project.runs.run import Run
from napari_dycon.project.store import Project

WINDOW_S = 0.03
# Seconds on an idle machine; on a busy one everything takes longer.
LOAD = os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 1.0
MAX_PAUSE_S, MAX_STOP_S = 1.0 * max(LOAD, 1.0), 3.0 * max(LOAD, 1.0)
NO_WAITING = {"intervals.validation_s": 0.0, "intervals.preview_s": 0.0}


def make_slow_config(**changes: Any) -> TrainConfig:
    """Return the settings of a run whose scans have many windows."""
    return make_config("dycon", **(TINY | {"batch.patch_size": [8, 8, 8], "steps": 4} | changes))


@pytest.fixture
def slow_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each window of a prediction take a while, so that a whole scan takes seconds."""
    usual = SegmentationNetwork.forward_with_bottleneck

    def predict(self: SegmentationNetwork, image: Tensor) -> tuple[Tensor, Tensor]:
        if not self.training:
            time.sleep(WINDOW_S)
        return usual(self, image)

    monkeypatch.setattr(SegmentationNetwork, "forward_with_bottleneck", predict)


@pytest.fixture
def any_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let previews and validation take any share of the time."""
    monkeypatch.setattr(Interval, "is_due", lambda self, now, *_: not self.is_waiting(now))


def is_phase(event: Event, phase: str) -> bool:
    return event.event == "phase" and event["phase"] == phase


def follow_until(events: Iterator[Event], is_end: Callable[[Event], bool]) -> float:
    """Consume events up to one and return the seconds until then."""
    begin = time.monotonic()
    for event in events:
        if is_end(event):
            return time.monotonic() - begin
    pytest.fail("the event did not come")


def start(
    project: Project, config: TrainConfig, preview: str | None = None
) -> tuple[Run, Iterator[Event]]:
    run = project.runs.create(config.method, config.to_dict())
    run.write_control(preview=preview)
    return run, train(project, config, run)


def pause_and_resume(run: Run, events: Iterator[Event]) -> float:
    """Pause a run and resume it after a moment; return the seconds until it was paused."""
    run.write_control(command="pause")
    seconds = follow_until(events, lambda e: e.event == "paused")
    run.write_control(command="run")
    assert next(events).event in ("resumed", "checkpoint")
    return seconds


def stop(run: Run, events: Iterator[Event]) -> float:
    run.write_control(command="stop")
    return follow_until(events, lambda e: e.event == "stopped")


@pytest.mark.usefixtures("slow_windows")
def test_a_paused_validation_continues_with_the_same_result(project: Project) -> None:
    project.set_split("scan-2", "validation")
    config = make_slow_config(preview=False)
    expected = list(train(project, config))[-1].dice
    run, events = start(project, config)
    follow_until(events, lambda e: is_phase(e, "validation"))
    assert pause_and_resume(run, events) < MAX_PAUSE_S
    (*_, last) = events
    assert (last.event, last.dice) == ("finished", expected)


@pytest.mark.usefixtures("slow_windows", "any_duration")
def test_a_paused_preview_continues_and_is_written(project: Project) -> None:
    run, events = start(project, make_slow_config(steps=12, **NO_WAITING), preview="scan-4")
    follow_until(events, lambda e: is_phase(e, "preview"))
    assert pause_and_resume(run, events) < MAX_PAUSE_S
    follow_until(events, lambda e: e.event == "preview")
    assert project.predictions.path(run.id, "scan-4", "mask", stage="preview").exists()
    assert list(events)[-1].event == "finished"


@pytest.mark.usefixtures("slow_windows", "any_duration")
@pytest.mark.parametrize("phase", ["preview", "validation"])
def test_stop_ends_a_preview_or_validation_and_saves(project: Project, phase: str) -> None:
    project.set_split("scan-2", "validation")
    config = make_slow_config(steps=100_000, preview=phase == "preview", **NO_WAITING)
    config = config.with_changes(validation=phase == "validation")
    run, events = start(project, config, preview="scan-4")
    follow_until(events, lambda e: is_phase(e, phase))
    assert stop(run, events) < MAX_STOP_S
    assert run.has_weights
    # A resumed run continues after the steps that were taken.
    step = run.read_metrics().step
    run.write_control(command="run", preview=None)
    config = config.with_changes(steps=int(step or 0) + 1, validation=False)
    *_, last = train(project, config, run)
    assert (last.event, last.step) == ("finished", config.steps)


@pytest.mark.usefixtures("slow_windows")
def test_stop_ends_the_validation_at_the_end(project: Project) -> None:
    project.set_split("scan-2", "validation")
    run, events = start(project, make_slow_config(preview=False, validation=False))
    follow_until(events, lambda e: is_phase(e, "validation"))
    run.write_control(command="stop")
    assert follow_until(events, lambda e: e.event == "finished") < MAX_STOP_S
    assert run.has_weights
    assert run.read_metrics().outcome == "finished"


def test_a_short_validation_is_also_made_after_a_stop(project: Project) -> None:
    project.set_split("scan-2", "validation")
    run, events = start(project, make_slow_config(steps=100_000))
    follow_until(events, lambda e: e.event == "step")
    assert stop(run, events) < MAX_STOP_S
    assert run.read_metrics().dice is not None


def test_registration_pauses_and_stops_within_an_iteration(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def register_slowly(moving: Tensor, fixed: Tensor, **options: Any) -> Tensor:
        should_stop = options.pop("should_stop")

        def wait_and_ask() -> bool:
            time.sleep(0.05)
            return bool(should_stop())

        return register(moving, fixed, should_stop=wait_and_ask, **options)

    monkeypatch.setattr(registered_cases, "register", register_slowly)
    config = make_slow_config(**{"atlas.max_registration_pairs": 9, "batch.patch_size": [16] * 3})
    run, events = start(project, config)
    follow_until(events, lambda e: is_phase(e, "aligning"))
    assert pause_and_resume(run, events) < MAX_PAUSE_S
    follow_until(events, lambda e: is_phase(e, "aligning"))
    assert stop(run, events) < MAX_STOP_S


def test_preparation_pauses(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = prepare_image

    def prepare_slowly(*arguments: Any) -> Any:
        time.sleep(0.5)
        return usual(*arguments)

    monkeypatch.setattr(preparation, "prepare_image", prepare_slowly)
    run, events = start(project, make_slow_config())
    follow_until(events, lambda e: is_phase(e, "preparing"))
    assert pause_and_resume(run, events) < MAX_PAUSE_S
    assert list(events)[-1].event == "finished"


def test_a_closed_run_ends_its_task(project: Project) -> None:
    project.set_split("scan-2", "validation")
    _, events = start(project, make_slow_config())
    follow_until(events, lambda e: is_phase(e, "validation"))
    begin = time.monotonic()
    events.close()  # type: ignore[attr-defined]
    assert time.monotonic() - begin < MAX_STOP_S
    assert not [one for one in threading.enumerate() if one.name.startswith("task")]
