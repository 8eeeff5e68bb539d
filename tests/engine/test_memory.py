"""Free memory, and smaller plans and windows where it is short."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_runs import TINY

from napari_dycon.core import available_memory
from napari_dycon.engine import memory
from napari_dycon.engine.checkpoints.model_file import load_model
from napari_dycon.engine.config import make_config
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
from napari_dycon.engine.training.run import train
from napari_dycon.errors import ConfigError
from napari_dycon.project.store import Project

CPU = torch.device("cpu")
GB = 2**30


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
