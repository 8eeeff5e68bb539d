"""Runs that are stopped, resumed or initialized from weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_runs import TINY
from safetensors.torch import load_file

from napari_dycon.engine.checkpoints.model_file import load_model
from napari_dycon.engine.config import (
    TrainConfig,
    make_config,
)
from napari_dycon.engine.training.run import train
from napari_dycon.project.store import Project


def make_tiny_config(method: str = "dycon", **changes: Any) -> TrainConfig:
    return make_config(method, **(TINY | changes))


@pytest.mark.parametrize(
    "changes", [{}, {"atlas.max_registration_pairs": 9, "semi_supervised.start": 0.3}]
)
def test_killed_and_resumed_runs_are_bit_identical(
    project: Project, changes: dict[str, Any]
) -> None:
    list(train(project, make_tiny_config(steps=6, **changes)))
    whole = load_file(project.runs.get().weights_path)
    interrupted = train(
        project, make_tiny_config(steps=6, **{"intervals.checkpoint_s": 0.0}, **changes)
    )
    for event in interrupted:
        if event.event == "checkpoint" and event.step == 3:
            interrupted.close()  # type: ignore[attr-defined]
            break
    run = project.runs.list()[-1]
    list(train(project, TrainConfig.from_dict(run.read_config()), run))
    resumed = load_file(run.weights_path)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_stop_keeps_the_weights(project: Project) -> None:
    run = project.runs.create("dycon", make_tiny_config(steps=10_000).to_dict())
    events = []
    for event in train(project, make_tiny_config(steps=10_000), run):
        events.append(event)
        if event.event == "step":
            run.write_control(command="stop")
    assert events[-1].event == "stopped"
    assert run.has_weights


def test_training_learns_and_can_start_from_its_weights(project: Project) -> None:
    for case in ("scan-2",):
        project.set_split(case, "validation")
    config = make_tiny_config(
        "supervised",
        steps=60,
        **{
            "optimizer.learning_rate": 0.02,
            "batch.labeled_size": 2,
            "network.filters": [8, 16, 16],
        },
        seed=1,
    )
    first = list(train(project, config))
    dice = [e.mean for e in first if e.event == "validation"][-1]
    assert dice > 0.6
    (temperature,) = [e.temperature for e in first if e.event == "calibrated"]
    assert load_model(project.runs.get().weights_path).temperature == temperature != 1.0
    again = list(train(project, config.with_changes(steps=1, init_from=project.runs.get().id)))
    assert not [e for e in again if e.event == "warning"]
    assert [e.mean for e in again if e.event == "validation"][-1] > 0.5


def test_training_cases_of_earlier_runs_are_reported(project: Project) -> None:
    first, second = (case.id for case in project.labeled_cases()[:2])
    list(train(project, make_tiny_config("supervised")))
    (project.runs.list()[-1].metrics_path).unlink()  # as if it had been killed
    project.set_split(first, "validation")
    for before in (project.runs.list()[-1].id, None):
        before = before or project.runs.list()[-1].id  # a run that started from the first one
        events = list(train(project, make_tiny_config("supervised", init_from=before)))
        (message,) = [e.message for e in events if e.event == "warning"]
        assert f"trained on 1 case(s) that are now used for validation ({first})" in message
    assert second not in message


def test_stop_before_the_first_step_leaves_no_weights(project: Project) -> None:
    run = project.runs.create("dycon", make_tiny_config().to_dict())
    run.write_control(command="stop")
    events = list(train(project, make_tiny_config(), run))
    assert events[-1].event == "stopped"
    assert not run.has_weights


def test_a_resumed_run_keeps_its_cases_and_labels(project: Project) -> None:
    interrupted = train(project, make_tiny_config(steps=6, **{"intervals.checkpoint_s": 0.0}))
    for event in interrupted:
        if event.event == "checkpoint" and event.step == 3:
            interrupted.close()  # type: ignore[attr-defined]
            break
    run = project.runs.list()[-1]
    before = {p.name: p.read_bytes() for p in (run.state_folder / "labels").iterdir()}
    label = np.zeros(project.read_image("scan-4").shape, np.uint8)
    label[2:5, 2:5, 2:5] = 1
    project.labels.save("scan-4", label)
    project.add_class("another")
    events = list(train(project, TrainConfig.from_dict(run.read_config()), run))
    assert (events[0].labeled, events[0].unlabeled) == (3, 3)
    assert events[-1].event == "finished"
    assert before == {p.name: p.read_bytes() for p in (run.state_folder / "labels").iterdir()}


def test_partially_matching_initial_weights_give_a_warning(project: Project) -> None:
    list(train(project, make_tiny_config("supervised", steps=1)))
    first = project.runs.get().id
    deeper = make_tiny_config(
        "supervised", steps=1, **{"network.filters": [4, 8, 8, 8]}, init_from=first
    )
    warned = [e.message for e in train(project, deeper) if e.event == "warning"]
    assert f"Run {first} has a different network: only 60% of its weights match" in warned[0]
    project.add_class("another")  # other classes change the last layer alone
    same = make_tiny_config("supervised", steps=1, init_from=first)
    warned = [e.message for e in train(project, same) if e.event == "warning"]
    assert not [message for message in warned if "network" in message]
