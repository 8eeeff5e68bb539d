"""The network and the patches that are planned for a computer and its scans."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from napari_dycon.engine.config import TrainConfig, make_config
from napari_dycon.engine.data.planning import PATCH_VOXELS, Fingerprint, plan_training
from napari_dycon.engine.network import build_network
from napari_dycon.errors import ConfigError

SCANS = [Fingerprint((36, 50, 35), (1.0, 1.0, 1.0), 0.0, 900.0)]


def plan_config(device: str, **settings: Any) -> TrainConfig:
    return plan_training(make_config("supervised", **settings), SCANS, device)


def test_a_cpu_gets_half_resolution_unless_the_network_is_configured() -> None:
    assert plan_config("cpu").network.half_resolution is True
    assert plan_config("cuda").network.half_resolution is False
    assert plan_config("cpu", **{"network.filters": [8, 16, 32]}).network.half_resolution is False
    assert plan_config("cpu", **{"network.half_resolution": False}).network.half_resolution is False
    both = plan_config("cuda", **{"network.filters": [8, 16, 32], "network.half_resolution": True})
    assert (both.network.filters, both.network.half_resolution, both.network.stride) == (
        (8, 16, 32),
        True,
        8,
    )
    again = plan_training(both, SCANS, "cpu")  # a run that goes on keeps its network
    assert again == both


@pytest.mark.parametrize("device", ["cpu", "mps", "cuda"])
@pytest.mark.parametrize("shape", [(36, 50, 35), (12, 320, 320), (300, 20, 40), (200, 200, 200)])
def test_coarsest_features_are_16_voxels_and_patches_are_multiples(
    device: str, shape: tuple[int, int, int]
) -> None:
    scans = [Fingerprint(shape, (1.0, 1.0, 1.0), 0.0, 900.0)]
    config = plan_training(make_config("dycon"), scans, device)
    assert config.network.stride == 16
    assert config.batch.patch_size is not None
    for side, length in zip(config.batch.patch_size, shape, strict=True):
        assert side == length if length < 32 else side >= 32 and side % 16 == 0
        assert side <= length


@pytest.mark.parametrize("device", ["cpu", "mps", "cuda"])
@pytest.mark.parametrize("half", [True, False])
def test_coarsest_features_stay_16_voxels_at_a_configured_resolution(
    device: str, half: bool
) -> None:
    config = plan_config(device, **{"network.half_resolution": half})
    assert (config.network.half_resolution, config.network.stride) == (half, 16)


@pytest.mark.parametrize("device", ["cpu", "mps", "cuda"])
@pytest.mark.parametrize("shape", [(10, 256, 216), (30, 512, 512), (1, 900, 900), (900, 20, 20)])
def test_patches_of_flat_scans_stay_within_the_budget(
    device: str, shape: tuple[int, int, int]
) -> None:
    scans = [Fingerprint(shape, (1.0, 1.0, 1.0), 0.0, 900.0)]
    patch = plan_training(make_config("dycon"), scans, device).batch.patch_size
    assert patch is not None
    most = min(PATCH_VOXELS[device], np.prod(shape))
    assert 0.5 * most < np.prod(patch) <= most


@pytest.mark.parametrize("norm", ["instance", "group", "batch"])
def test_a_network_of_six_levels_gets_enough_locations_for_its_norm(norm: str) -> None:
    config = plan_config("cpu", **{"network.filters": [8, 8, 8, 8, 8, 8], "network.norm": norm})
    assert config.batch.patch_size == (36, 50, 35)  # all that the scans have
    network = build_network(config, channels=1, classes=2)
    assert network(torch.randn(1, 1, *config.batch.patch_size)).logits.isfinite().all()
    if norm != "group":
        with pytest.raises(ConfigError, match="single location of the coarsest level"):
            config.with_changes({"batch.patch_size": (32, 32, 32)})


def test_small_scans_get_enough_locations_for_their_norm() -> None:
    scans = [Fingerprint((12, 16, 9), (1.0, 1.0, 1.0), 0.0, 900.0)]
    assert plan_training(make_config("dycon"), scans, "cpu").batch.patch_size == (12, 16, 9)
    assert plan_training(
        make_config("dycon", **{"network.norm": "instance"}), scans, "cpu"
    ).batch.patch_size == (32, 32, 32)


def test_patches_fit_the_stride_of_half_resolution() -> None:
    patch = plan_config("cpu").batch.patch_size
    assert patch is not None
    assert all(side % 8 == 0 for side in patch)
