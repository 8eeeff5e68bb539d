"""Runs with a time limit, and the phases that runs report."""

from __future__ import annotations

import itertools
import os
import time
from typing import Any

import pytest
import torch
from helpers.tiny_runs import TINY
from torch import Tensor

from napari_dycon.engine.config import TrainConfig, make_config
from napari_dycon.engine.inference.prediction_effort import Effort
from napari_dycon.engine.network import SegmentationNetwork
from napari_dycon.engine.training.interval import Interval
from napari_dycon.engine.training.run import train
from napari_dycon.engine.training.time_plan import TimePlan, ValidationPlan
from napari_dycon.project.runs.events import Event
from napari_dycon.project.store import Project

# On a busy machine everything takes longer.
LOAD = os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 1.0
LIMIT_S = 10.0 * min(max(LOAD, 1.0), 8.0)
TOLERANCE_S = 20.0 * max(LOAD, 1.0)


def slow_down_windows(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let each window of a prediction take a while."""
    usual = SegmentationNetwork.forward_with_bottleneck

    def predict_slowly(self: SegmentationNetwork, image: Tensor) -> tuple[Tensor, Tensor]:
        if not self.training:
            time.sleep(seconds)
        return usual(self, image)

    monkeypatch.setattr(SegmentationNetwork, "forward_with_bottleneck", predict_slowly)


def make_limited_config(time_limit: float, **changes: Any) -> TrainConfig:
    settings = {k: v for k, v in TINY.items() if k != "steps"}
    return make_config("dycon", **(settings | {"time_limit": time_limit} | changes))


@pytest.fixture
def any_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let previews and validation take any share of the time."""
    monkeypatch.setattr(Interval, "is_due", lambda self, now, *_: not self.is_waiting(now))


def list_phases(events: list[Event]) -> list[str]:
    phases = [event.phase for event in events if event.event == "phase"]
    return [phase for phase, _ in itertools.groupby(phases)]


def test_phases_are_reported_in_their_order(project: Project) -> None:
    project.set_split("scan-2", "validation")
    config = make_config("dycon", **(TINY | {"atlas.max_registration_pairs": 3}))
    events = list(train(project, config))
    assert list_phases(events) == [
        "starting", "preparing", "starting", "aligning", "training", "finishing", "validation",
        "finishing",
    ]  # fmt: skip
    aligning = [event for event in events if event.event == "phase" and event.phase == "aligning"]
    assert aligning[-1].done == aligning[-1].total > 1
    assert [event.done for event in aligning] == sorted(event.done for event in aligning)
    (validation,) = {
        (event.done, event.total)
        for event in events
        if event.event == "phase" and event.phase == "validation"
    }
    assert validation == (0, 1)


def test_the_time_of_a_run_includes_everything(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation with the ensemble would take longer than the whole run."""
    list(train(project, make_config("dycon", **(TINY | {"steps": 1}))))  # imports what is needed
    slow_down_windows(monkeypatch, 0.01 * LIMIT_S)
    project.set_split("scan-2", "validation")
    config = make_limited_config(LIMIT_S, **{"batch.patch_size": [6, 6, 6]})
    begin = time.monotonic()
    events = list(train(project, config, elapsed_s=2.0))
    assert time.monotonic() - begin < LIMIT_S - 2.0 + TOLERANCE_S
    last = events[-1]
    assert (last.event, last.reason) == ("finished", "time limit")
    assert last.elapsed_s <= LIMIT_S + TOLERANCE_S
    validations = [event for event in events if event.event == "validation"]
    assert not any(event.ensemble for event in validations)
    steps = [event for event in events if event.event == "step"]
    # The remaining time is that of the whole run, with its end.
    for event in steps:
        left_s = LIMIT_S - event.elapsed_s
        assert event.remaining_s == pytest.approx(max(left_s, 0.0), abs=0.5)
    assert steps[-1].progress == pytest.approx(1.0, abs=0.3)


def test_cases_without_time_are_reported(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = ValidationPlan(Effort.COARSE, 1, 0.0)
    monkeypatch.setattr(TimePlan, "plan_validation", lambda *_: plan)
    for case in ("scan-1", "scan-2"):
        project.set_split(case, "validation")
    events = list(train(project, make_config("supervised", **TINY)))
    warnings = [event.message for event in events if event.event == "warning"]
    assert any("The time limit left no time for it" in text for text in warnings)
    result = project.runs.get().read_metrics()
    assert result.validation is not None
    assert set(result.validation["skipped_cases"]) == {"scan-2"}
    assert result.validation["ensemble"] is False
    assert result.dice is not None


def test_a_run_without_time_for_validation_says_so(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = ValidationPlan(Effort.COARSE, 0, 0.0)
    monkeypatch.setattr(TimePlan, "plan_validation", lambda *_: plan)
    project.set_split("scan-2", "validation")
    events = list(train(project, make_config("supervised", **TINY)))
    assert [event for event in events if event.event == "validation"] == []
    warnings = [event.message for event in events if event.event == "warning"]
    assert any("left no time to evaluate the validation cases" in text for text in warnings)
    assert project.runs.get().read_metrics().dice is None


def test_a_time_limit_that_is_too_short_for_anything_ends_the_run(project: Project) -> None:
    events = list(train(project, make_limited_config(0.001)))
    assert events[-1].event == "finished"
    assert project.runs.list()[-1].has_weights is bool(events[-1].step)


@pytest.mark.usefixtures("any_duration")
@pytest.mark.parametrize("enabled", [True, False])
def test_previews_can_be_disabled(project: Project, enabled: bool) -> None:
    config = make_config(
        "supervised",
        **(TINY | {"steps": 12, "preview": enabled, "intervals.preview_s": 0.0}),
    )
    run = project.runs.create("supervised", config.to_dict())
    run.write_control(preview="scan-4")
    events = list(train(project, config, run))
    assert any(event.event == "preview" for event in events) is enabled


@pytest.mark.usefixtures("any_duration")
def test_validation_during_a_run_can_be_disabled(project: Project) -> None:
    project.set_split("scan-2", "validation")
    changes = {"steps": 10, "validation": False, "intervals.validation_s": 0.0}
    events = list(train(project, make_config("supervised", **(TINY | changes))))
    assert [event.step for event in events if event.event == "validation"] == [10]


@pytest.mark.usefixtures("any_duration")
def test_previews_and_validation_do_not_change_the_weights(project: Project) -> None:
    project.set_split("scan-2", "validation")
    weights = []
    for enabled in (True, False):
        changes: dict[str, Any] = {
            "steps": 20, "preview": enabled, "validation": enabled,
            "intervals.preview_s": 0.0, "intervals.validation_s": 0.0,
        }  # fmt: skip
        config = make_config("dycon", **(TINY | changes))
        run = project.runs.create("dycon", config.to_dict())
        run.write_control(preview="scan-4")
        events = list(train(project, config, run))
        assert any(event.event == "preview" for event in events) is enabled
        validated = [event.step for event in events if event.event == "validation"]
        assert (len(validated) > 2) is enabled, validated
        weights.append(run.weights_path.read_bytes())
    from safetensors.torch import load

    first, second = (load(data) for data in weights)
    assert all(torch.equal(first[name], second[name]) for name in first)
