"""The network's forward pass that keeps less for the backward pass, against MONAI's own modules."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from napari_dycon.engine import network as module
from napari_dycon.engine.config import make_config
from napari_dycon.engine.network import (
    Features,
    NormalizeAndActivate,
    SegmentationNetwork,
    build_network,
)


@pytest.fixture(autouse=True)
def _small_samples_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Split batches at the sizes of these tests already, at the finest levels."""
    monkeypatch.setattr(module, "MIN_SAMPLE_VALUES", 4096)


def make_network(**settings: Any) -> SegmentationNetwork:
    torch.manual_seed(0)
    config = make_config("dycon", filters=[8, 8, 16], **settings)
    return build_network(config, channels=1, classes=2)


def compute(
    network: SegmentationNetwork, image: Tensor, *, lean: bool, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Tensor], list[Tensor]]:
    """Return outputs and gradients of a pass through the network."""
    monkeypatch.setattr(SegmentationNetwork, "_is_lean", lambda *_: lean)
    network.zero_grad()
    outputs = network.describe(image)
    weights = torch.arange(outputs[0].numel(), dtype=image.dtype).sin().view_as(outputs[0])
    ((outputs[0] * weights).mean() + sum(x.float().square().mean() for x in outputs)).backward()
    gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    return [x.detach() for x in outputs], gradients


@pytest.mark.parametrize("size", [(16, 16, 16), (17, 13, 22)])
@pytest.mark.parametrize("norm", ["group", "instance"])
@pytest.mark.parametrize("half", [False, True])
def test_outputs_and_gradients_are_those_of_the_plain_modules(
    half: bool, norm: str, size: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make_network(half_resolution=half, norm=norm).double()
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    image = torch.randn(3, 1, *size, dtype=torch.float64)
    expected = compute(network, image, lean=False, monkeypatch=monkeypatch)
    found = compute(network, image, lean=True, monkeypatch=monkeypatch)
    for a, b in zip(expected[0] + expected[1], found[0] + found[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("groups", [2, 4])
def test_gradients_of_the_norm_with_its_activation(groups: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    weight, bias = (torch.randn(4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(
        lambda *inputs: NormalizeAndActivate.apply(*inputs, groups, 1e-5, 0.01), (x, weight, bias)
    )


def test_bfloat16_is_as_close_to_float32_as_the_plain_modules_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, image = make_network(half_resolution=False), torch.randn(2, 1, 24, 24, 24)
    exact, _ = compute(network, image, lean=False, monkeypatch=monkeypatch)
    errors = []
    for lean in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs, gradients = compute(network, image, lean=lean, monkeypatch=monkeypatch)
        errors.append((outputs[0].float() - exact[0]).abs().mean())
        assert all(torch.isfinite(g).all() for g in gradients)
    assert errors[1] < 1.5 * errors[0]


def test_a_copy_without_gradients_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network, image = make_network(half_resolution=True), torch.randn(2, 1, 16, 16, 16)
    teacher = copy.deepcopy(network).requires_grad_(False)
    assert torch.equal(teacher(image, embed=True).logits, network(image).logits)


def test_gradients_do_not_change_from_time_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    network, image = make_network(half_resolution=False), torch.randn(2, 1, 16, 16, 16)
    first = compute(network, image, lean=True, monkeypatch=monkeypatch)
    second = compute(network, image, lean=True, monkeypatch=monkeypatch)
    assert all(torch.equal(a, b) for a, b in zip(first[1], second[1], strict=True))


def test_inputs_of_convolutions_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    network, image = make_network(half_resolution=False), torch.randn(2, 1, 16, 16, 16)
    inputs: list[weakref.ref[Tensor]] = []

    def convolve(conv: nn.Module, x: Features) -> Tensor:
        inputs.append(weakref.ref(x.value))
        return original(conv, x)

    original = module.convolve
    monkeypatch.setattr(module, "convolve", convolve)
    outputs = network.describe(image)
    alive = sum(ref() is not None for ref in inputs)
    assert outputs[0].requires_grad
    # The image's patches, and the bottleneck's features, which are returned.
    assert alive < len(inputs) / 4
