"""If memory is short, the plan becomes smaller and training continues with a warning."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_runs import TINY
from safetensors.torch import load_file

from napari_dycon.core import available_memory
from napari_dycon.engine import memory
from napari_dycon.engine.checkpoints.model_file import load_model
from napari_dycon.engine.checkpoints.training_state import read_training_progress
from napari_dycon.engine.config import TrainConfig, make_config
from napari_dycon.engine.data.patches import Batch, LabeledBatch, UnlabeledBatch
from napari_dycon.engine.data.planning import Fingerprint, estimate_patch_bytes, plan_training
from napari_dycon.engine.inference import predict
from napari_dycon.engine.inference.predict import predict_volume
from napari_dycon.engine.inference.windows import Windows
from napari_dycon.engine.memory import (
    MemoryPlan,
    fit_to_memory,
    get_free_bytes,
    shrink_patch,
    split_batch,
)
from napari_dycon.engine.methods.base import StepInputs
from napari_dycon.engine.methods.supervised import Supervised
from napari_dycon.engine.training import trainer
from napari_dycon.engine.training.run import train
from napari_dycon.errors import ConfigError, EngineError
from napari_dycon.project.runs.events import parse_event
from napari_dycon.project.store import Project

CPU = torch.device("cpu")
GB = 2**30
LARGE: dict[str, Any] = TINY | {
    "batch.patch_size": [40, 40, 40], "batch.labeled_size": 2, "batch.unlabeled_size": 2
}  # fmt: skip


def test_the_batch_is_split_before_patches_shrink() -> None:
    config = make_config(
        "dycon", **{"batch.patch_size": [64, 64, 48], "network.filters": [8, 16, 16, 16, 16]}
    )
    plans = [MemoryPlan.from_config(config)]
    while (lower := plans[-1].reduce(config)) is not None:
        plans.append(lower)
    assert [p.accumulation_steps for p in plans] == [1, *[2] * (len(plans) - 1)]
    assert [p.activation_checkpointing for p in plans[:3]] == [False, False, True]
    assert {p.patch for p in plans[:3]} == {(64, 64, 48)}
    assert plans[-1] == MemoryPlan((32, 32, 32), 2, True)
    for one, two in itertools.pairwise(plans[2:]):
        assert math.prod(two.patch) < math.prod(one.patch)
        assert all(side % 16 == 0 for side in two.patch)
        assert two.apply(config).batch.patch_size == two.patch


def test_batch_normalized_features_are_never_recomputed() -> None:
    config = make_config(
        "dycon",
        **{
            "batch.patch_size": [64, 64, 48],
            "network.filters": [8, 16, 16, 16, 16],
            "network.norm": "batch",
        },
    )
    plan = MemoryPlan.from_config(config)
    while (lower := plan.reduce(config)) is not None:
        plan = lower
    assert plan == MemoryPlan((32, 32, 32), 2, False)
    with pytest.raises(
        ConfigError, match=r"activation_checkpointing cannot be used with network\.norm"
    ):
        make_config("dycon", **{"network.norm": "batch", "batch.activation_checkpointing": True})


def test_patches_shrink_along_their_longest_sides_down_to_a_minimum() -> None:
    assert shrink_patch((112, 112, 80), 16, 32) == (80, 96, 80)
    assert shrink_patch((48, 48, 48), 16, 32) == (32, 48, 48)
    assert shrink_patch((32, 32, 32), 16, 32) == (32, 32, 32)
    assert shrink_patch((16, 16, 16), 4, 32) == (16, 16, 16)


def test_plans_that_a_checkpoint_cannot_store_are_skipped() -> None:
    for values in (
        None,
        {},
        {"patch": [1, 2]},
        {"patch": [0, 1, 1], "accumulation_steps": 1},
    ):
        assert MemoryPlan.from_json(values) is None
    kept = {"patch": [32, 48, 48], "accumulation_steps": 2}
    assert MemoryPlan.from_json(kept) == MemoryPlan((32, 48, 48), 2)
    kept["activation_checkpointing"] = True
    assert MemoryPlan.from_json(kept) == MemoryPlan((32, 48, 48), 2, True)
    with pytest.raises(ConfigError, match="expected a divisor"):
        make_config("dycon", **{"batch.labeled_size": 3, "batch.accumulation_steps": 2})


@pytest.mark.parametrize("share", [1.0, 0.5, 0.25, 0.01])
def test_a_plan_is_reduced_until_it_fits(share: float) -> None:
    config = make_config(
        "dycon", **{"batch.patch_size": [64, 64, 64], "network.filters": [24, 48, 96, 128, 128]}
    )
    settings: dict[str, Any] = {"channels": 1, "classes": 2, "has_unlabeled": True}
    need = MemoryPlan.from_config(config).estimate_bytes(config, **settings)
    free = int(need * share / memory.USABLE_FRACTION) + 1
    fitted = fit_to_memory(config, free, **settings)
    if share == 1.0:
        assert fitted == config
    elif share > 0.1:
        assert MemoryPlan.from_config(fitted).estimate_bytes(fitted, **settings) <= need * share + 1
    else:
        assert fitted.batch.patch_size == (32, 32, 32)  # as small as can be
    assert fitted.batch.accumulation_steps == (1 if share == 1.0 else 2)


def test_small_gpus_get_plans_that_fit() -> None:
    scans = [Fingerprint((200, 300, 300), (1.0, 1.0, 1.0), 0.0, 900.0)]
    sizes = []
    for card in (2, 4, 6, 8, 12, 16, 24, 80):
        config = plan_training(make_config("dycon"), scans, "cuda", card_bytes=int(0.9 * card * GB))
        assert config.batch.patch_size is not None
        patches = 4 // config.batch.accumulation_steps
        need = patches * estimate_patch_bytes(config, channels=1, classes=2)
        assert need <= 0.8 * 0.9 * card * GB
        sizes.append(need)
        assert config.network.stride == 16
        if card >= 24:
            assert config == plan_training(make_config("dycon"), scans, "cuda")
        if card <= 8:
            assert config.network.filters == (16, 32, 64, 128, 256)
    assert sizes == sorted(sizes)
    chosen = make_config(
        "dycon", **{"batch.patch_size": [96, 96, 96], "network.filters": [16, 32, 64, 128]}
    )
    kept = plan_training(chosen, scans, "cuda", card_bytes=GB)
    assert (kept.batch.patch_size, kept.network.filters, kept.batch.accumulation_steps) == (
        (96,) * 3,
        chosen.network.filters,
        1,
    )


def test_micro_batches_are_equal_parts() -> None:
    images = torch.arange(4.0)[:, None, None, None, None].expand(4, 1, 2, 2, 2)
    place = torch.arange(12.0).reshape(4, 3)
    batch = Batch(
        LabeledBatch(images, images[:, 0].long(), place, place),
        UnlabeledBatch(images[:2], place[:2], place[:2]),
    )
    one, two = split_batch(batch, 2)
    assert torch.equal(torch.cat([one.labeled.label, two.labeled.label]), batch.labeled.label)
    assert one.unlabeled is not None
    assert (len(one.labeled.image), len(one.unlabeled.image)) == (2, 1)
    assert split_batch(batch, 1) == [batch]
    assert split_batch(batch._replace(unlabeled=None), 4)[3].unlabeled is None


@pytest.mark.parametrize("version", [1, 2])
def test_memory_limits_of_control_groups_are_detected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    own = tmp_path / "cgroup"
    monkeypatch.setattr(available_memory, "CGROUP_ROOT", tmp_path)
    monkeypatch.setattr(available_memory, "PROCESS_CGROUPS", own)
    if version == 2:
        own.write_text("0::/user/job\n")
        outer, inner = tmp_path / "user", tmp_path / "user" / "job"
        limit, used, stat = "memory.max", "memory.current", "inactive_file 100\nanon 5\n"
    else:
        own.write_text("9:cpu:/\n4:memory:/user/job\n0::/\n")
        outer, inner = tmp_path / "memory" / "user", tmp_path / "memory" / "user" / "job"
        limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        stat = "inactive_file 1\ntotal_inactive_file 60\ntotal_active_file 40\n"
    inner.mkdir(parents=True)
    (outer / limit).write_text("max\n" if version == 2 else str(2**63 - 1))
    (outer / used).write_text("700\n")
    (inner / limit).write_text("1000\n")
    (inner / used).write_text("500\n")
    assert get_free_bytes(CPU) == 500
    (inner / "memory.stat").write_text(stat)
    assert get_free_bytes(CPU) == 600
    (outer / limit).write_text("800\n")  # what is around a group binds as well
    assert get_free_bytes(CPU) == 100
    own.unlink()
    free = get_free_bytes(CPU)
    assert free is not None
    assert free > 1000


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
            patch.setattr(trainer, "STEP_EVENT_INTERVAL_S", 0.0)
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


def test_a_scan_is_predicted_in_smaller_windows_when_memory_is_short(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(train(project, make_config("supervised", **(TINY | {"batch.patch_size": [24, 24, 24]}))))
    model = load_model(project.runs.get().weights_path)
    volume = project.read_image("scan-4")
    usual, seen = predict.predict_windows, []  # type: ignore[attr-defined]

    def limited(image: torch.Tensor, predictor: Any, windows: Windows, **named: Any) -> Any:
        seen.append(windows.size)
        if math.prod(windows.size) > most:
            raise RuntimeError("CUDA out of memory.")
        return usual(image, predictor, windows, **named)

    monkeypatch.setattr(predict, "predict_windows", limited)
    most = math.prod(volume.shape) // 2
    found = predict_volume(model, volume, CPU, fast=True)
    assert len(seen) > 1
    assert math.prod(seen[-1]) <= most
    assert found.mask.shape == volume.shape
    assert np.isfinite(found.uncertainty).all()
    most = 0
    with pytest.raises(MemoryError):
        predict_volume(model, volume, CPU, fast=True)


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
