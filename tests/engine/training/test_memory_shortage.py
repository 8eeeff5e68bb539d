"""Runs whose plan needs more memory than there is continue with a smaller one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from helpers.tiny_runs import TINY
from safetensors.torch import load_file

from napari_dycon.engine.checkpoints.model_file import load_model
from napari_dycon.engine.checkpoints.training_state import read_training_progress
from napari_dycon.engine.config import TrainConfig, make_config
from napari_dycon.engine.memory import (
    MemoryPlan,
)
from napari_dycon.engine.methods.base import StepInputs
from napari_dycon.engine.methods.supervised import Supervised
from napari_dycon.engine.training import step_events
from napari_dycon.engine.training.run import train
from napari_dycon.errors import EngineError
from napari_dycon.project.runs.events import parse_event
from napari_dycon.project.store import Project

LARGE: dict[str, Any] = TINY | {
    "batch.patch_size": [40, 40, 40], "batch.labeled_size": 2, "batch.unlabeled_size": 2
}  # fmt: skip


class Card:
    """Memory that only so many voxels at once fit into, and how often they did not."""

    def __init__(self, voxels: int) -> None:
        self.voxels, self.refused = voxels, 0
        self.usual = Supervised.compute_loss_terms

    def compute_loss_terms(self, method: Supervised, step: StepInputs) -> dict[str, torch.Tensor]:
        if step.batch.labeled.image.numel() > self.voxels:
            self.refused += 1
            raise RuntimeError("CUDA out of memory. Tried to allocate 9 GiB")
        return self.usual(method, step)


@pytest.fixture
def simulated_gpu(monkeypatch: pytest.MonkeyPatch) -> Card:
    made = Card(36 * 40 * 40)
    monkeypatch.setattr(
        Supervised, "compute_loss_terms", lambda method, step: made.compute_loss_terms(method, step)
    )
    return made


def test_a_too_large_run_continues_with_a_smaller_plan(
    project: Project, simulated_gpu: Card
) -> None:
    config = make_config("supervised", **LARGE)
    events = list(train(project, config))
    assert (events[-1].event, events[-1].step) == ("finished", 4)
    (reported,) = [e.message for e in events if e.event == "warning"]
    assert reported == (
        "This computer has too little memory for this plan, so each step is computed in 2 parts, "
        "features are recomputed, which takes a quarter longer and patches are 32×36×36 "
        "voxels now; training continues."
    )
    run = project.runs.get()
    kept = TrainConfig.from_dict(run.read_config())
    assert MemoryPlan.from_config(kept) == MemoryPlan((32, 36, 36), 2, True)
    assert load_model(run.weights_path).config == kept
    assert simulated_gpu.refused == 3
    # The file of settings may be older than the last checkpoint, which knows better.
    run.config_path.write_text(json.dumps(config.with_changes(steps=6).to_dict()))
    again = list(train(project, TrainConfig.from_dict(run.read_config()), run))
    assert (again[0].resumed_from_step, again[-1].step) == (4, 6)
    assert not [e for e in again if e.event == "warning"]
    assert simulated_gpu.refused == 3


def test_a_run_with_a_smaller_plan_resumes_bit_identically(
    project: Project, simulated_gpu: Card
) -> None:
    settings = LARGE | {"steps": 5, "intervals.checkpoint_s": 600.0}

    def limited(events: Any) -> Any:
        for event in events:
            if event.event == "step" and event.step == 2:
                simulated_gpu.voxels = 36 * 40 * 40  # another program takes the rest
            yield event

    results = []
    for interrupt in (False, True):
        simulated_gpu.voxels, simulated_gpu.refused = 10**9, 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(step_events, "STEP_EVENT_INTERVAL_S", 0.0)
            events = limited(train(project, make_config("supervised", **settings)))
            for event in events:
                # Written at once when the plan was lowered, and not only minutes later.
                if interrupt and event.event == "checkpoint":
                    assert event.step == 3
                    events.close()
                    break
        run = project.runs.list()[-1]
        if interrupt:
            state = read_training_progress(run.state_folder / "state.safetensors")
            assert MemoryPlan.from_json(state.memory) == MemoryPlan((32, 36, 36), 2, True)
            list(train(project, TrainConfig.from_dict(run.read_config()), run))
        assert simulated_gpu.refused == 3
        results.append(load_file(run.weights_path))
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


def test_persistent_lack_of_memory_is_an_error(project: Project, simulated_gpu: Card) -> None:
    simulated_gpu.voxels = 0
    with pytest.raises(EngineError, match="ran out of memory, even with the smallest") as reported:
        list(train(project, make_config("supervised", **LARGE)))
    assert "--" not in str(reported.value)
    last = project.runs.list()[-1].read_events()[0][-1]
    assert last.event == "failed"


def test_an_update_that_fails_halfway_restores_the_checkpoint(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of the weights was changed already: they are no state of the run."""
    usual = torch.optim.AdamW.step
    calls = 0

    def update(optimizer: torch.optim.AdamW) -> None:
        nonlocal calls
        calls += 1
        usual(optimizer)
        if calls == 5:  # the first one allocates
            raise RuntimeError("CUDA out of memory.")

    monkeypatch.setattr(torch.optim.AdamW, "step", update)
    changes = {"steps": 6, "intervals.checkpoint_s": 0.0, "batch.patch_size": [36, 32, 32]}
    events = list(train(project, make_config("supervised", **(LARGE | changes))))
    (back,) = [e for e in events if e.event == "resumed"]
    assert back.resumed_from_step == back.step == 3
    assert (events[-1].event, events[-1].step) == ("finished", 6)
    (reported,) = [e.message for e in events if e.event == "warning"]
    assert "each step is computed in 2 parts now" in reported
    steps = [e.step for e in project.runs.get().read_history() if e.event == "step"]
    assert steps == sorted(set(steps))


SCRIPT = """
import json, resource, sys
from pathlib import Path
import psutil, torch
from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.training.run import train
from napari_dycon.project.runs.events import format_event
from napari_dycon.project.store import Project

torch.nn.functional.conv3d(torch.zeros(1, 4, 8, 8, 8), torch.zeros(4, 4, 3, 3, 3))
limit = psutil.Process().memory_info().vms + int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
config = TrainConfig.from_dict(json.loads(sys.argv[2]))
for event in train(Project.open(Path(sys.argv[1])), config):
    print(format_event(event), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="address spaces are limited on Linux alone")
def test_a_run_with_half_the_required_memory_produces_weights(project: Project) -> None:
    """In a process whose address space may grow by half of what the plan needs."""
    config = make_config(
        "supervised",
        **(
            LARGE
            | {
                "batch.patch_size": [64, 64, 64],
                "network.filters": [24, 32, 32],
                "steps": 2,
                "augmentation.enabled": False,
            }
        ),
    )
    settings: dict[str, Any] = {"channels": 1, "classes": 2, "has_unlabeled": False}
    need = MemoryPlan.from_config(config).estimate_bytes(config, **settings)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            SCRIPT,
            str(project.path),
            json.dumps(config.to_dict()),
            str(need // 2),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    events = [parse_event(line.encode()) for line in done.stdout.splitlines()]
    assert (events[-1].event, events[-1].step) == ("finished", 2)
    warned = [e.message for e in events if e.event == "warning"]
    assert len(warned) == 1, warned
    (reported,) = warned
    assert reported.startswith("This computer has too little memory for this plan, so ")
    assert reported.endswith("; training continues.")
    assert load_model(project.runs.get().weights_path).config.batch.accumulation_steps == 2
