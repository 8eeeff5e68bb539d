"""GPU code never waits for the device and creates no host tensors; tested without a GPU.

Tensors of torch's meta device have no values: to read one is an error, and so is to mix them with
tensors of the CPU.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_runs import TINY
from torch.utils._python_dispatch import TorchDispatchMode

from napari_dycon.engine.atlas import label_fusion
from napari_dycon.engine.atlas.registration import register, sampling_grid, warp
from napari_dycon.engine.config import METHODS, TrainConfig, make_config
from napari_dycon.engine.data.augmentation import Augmentation, compute_crop_shape
from napari_dycon.engine.data.patches import Batch, CropBatch, Crops
from napari_dycon.engine.inference.uncertainty import compute_uncertainty_maps
from napari_dycon.engine.methods import build_method
from napari_dycon.engine.network import build_network
from napari_dycon.engine.training.optimizer import build_optimizer
from napari_dycon.engine.training.stepper import Stepper

META = torch.device("meta")
EVERYTHING = Augmentation(
    blur=(1.0, 1.0, 1.0), zoom=0.7, noise_std=0.1, brightness=0.1, gamma=0.9, flip_left_right=True
)


class _Generator:
    """In place of a generator, of which this device has none."""

    def __init__(self, device: torch.device) -> None:
        assert device == META

    def manual_seed(self, _: int) -> _Generator:
        return self


class _Uploads(TorchDispatchMode):
    """Finds copies to the device that the host would wait for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if "_to_copy" in str(func) and args[0].device.type == "cpu" and made.device == META:
            assert (kwargs or {}).get("non_blocking"), "a copy that is waited for"
        return made


@pytest.fixture
def meta_device(monkeypatch: pytest.MonkeyPatch) -> None:
    randn = torch.randn
    monkeypatch.setattr(torch, "Generator", _Generator)
    monkeypatch.setattr(torch, "randn", lambda *a, generator=None, **k: randn(*a, **k))
    monkeypatch.setattr(torch, "autocast", lambda *a, **k: contextlib.nullcontext())
    monkeypatch.setattr(
        "napari_dycon.engine.training.stepper._build_flag_reader", lambda _: lambda _: True
    )


def make_batch(config: TrainConfig, *, unlabeled: bool) -> Batch:
    """A batch of crops that get every augmentation on the device."""
    assert config.batch.patch_size is not None
    size = compute_crop_shape(config.batch.patch_size, config)

    def crops(label: bool) -> Crops:
        return Crops(
            torch.empty(2, 1, *size, dtype=torch.float16, device=META),
            torch.empty(2, *size, dtype=torch.uint8, device=META) if label else None,
            torch.empty(2, 3, device=META),
            torch.empty(2, 3, device=META),
            (EVERYTHING, Augmentation()),
        )

    return CropBatch(
        crops(True), crops(False) if unlabeled else None, config.batch.patch_size, 0
    ).augment(META)


@pytest.mark.usefixtures("meta_device")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("preset", "dtype"), [("left-atrium", torch.float32), ("default", torch.float16)]
)
def test_training_steps_do_not_synchronize_with_the_device(
    monkeypatch: pytest.MonkeyPatch, method: str, preset: str, dtype: torch.dtype
) -> None:
    config = make_config(
        method,
        preset,
        **(TINY | {"batch.labeled_size": 2, "batch.unlabeled_size": 2, "precision": "auto"}),
    )
    student, teacher = (build_network(config, 1, 2).to(META) for _ in range(2))
    optimizer = build_optimizer(config, student)
    monkeypatch.setattr(optimizer, "step", lambda: None)  # one fused kernel, on CUDA alone
    stepper = Stepper(
        student, teacher.requires_grad_(False), optimizer, META, dtype, is_deferred=True
    )
    with _Uploads():
        batch = make_batch(config, unlabeled=method != "supervised")
        parts, loss = stepper.step(0, config, build_method(config), batch, 0.5, 1e-3)
        stepper.step(1, config, build_method(config), batch, 0.6, 1e-3)
    assert loss.device == META
    assert all(part.device == META for part in parts.values())


def test_registration_and_sampling_do_not_synchronize_with_the_device() -> None:
    scans = torch.empty(2, 1, 16, 16, 20, device=META)
    with _Uploads():
        field = sampling_grid(register(scans, scans), (40, 44, 48))
        assert warp(torch.empty(2, 1, 30, 31, 32, device=META), field).device == META


def test_label_fusion_does_not_synchronize_with_the_device() -> None:
    reach = label_fusion.TILE_MARGIN + label_fusion.CONTRAST_RADIUS
    level = label_fusion.ChannelStatistics(
        *(torch.empty(1, 1, 1, 1, device=META) for _ in range(2))
    )
    box = (slice(2, 10), slice(0, 9), slice(3, 12))
    with _Uploads():
        whole = torch.empty(1, 20, 20, 20, device=META)
        evened = label_fusion.normalize_local_contrast(label_fusion._crop(whole, box, reach), level)
        fixed = label_fusion._shift(
            evened, (label_fusion.SEARCH_RADIUS,) * 3, [n - 2 for n in evened.shape[1:]]
        )
        label = label_fusion._crop(whole.to(torch.uint8), box, label_fusion.SEARCH_RADIUS)[0]
        shares = label_fusion._compute_probabilities(fixed, [evened] * 3, [label] * 3, (0, 1))
    assert shares.shape == (2, 8, 9, 9)
    assert shares.device == META


def test_prediction_maps_do_not_synchronize_with_the_device() -> None:
    members = (torch.empty(2, 8, 8, 8, device=META) for _ in range(3))
    found = compute_uncertainty_maps(members, torch.empty(2, 8, 8, 8, device=META), 0.4)
    assert {array.device for array in found} == {META}


def test_reading_a_value_is_an_error() -> None:
    with pytest.raises(Exception, match="meta"):
        bool(torch.empty((), device=META) > 0)
    with pytest.raises(Exception, match="meta"):
        torch.empty(2, device=META) + torch.from_numpy(np.zeros(2))
