"""Networks at full and at half resolution."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.tiny_runs import TINY

from napari_dycon.engine.checkpoints.model_file import load_model
from napari_dycon.engine.config import TrainConfig, make_config
from napari_dycon.engine.data.planning import Fingerprint, plan_training
from napari_dycon.engine.inference.predict_scans import predict_cases
from napari_dycon.engine.losses.feature_grid import block_mean, downsample_labels
from napari_dycon.engine.losses.fecl import fecl
from napari_dycon.engine.network import FullResolutionHead, build_network, flatten_spatial
from napari_dycon.engine.training.run import train
from napari_dycon.project.store import Project


@pytest.mark.parametrize("half", [False, True])
def test_logits_have_the_image_grid_and_embeddings_twice_the_bottleneck_grid(half: bool) -> None:
    config = make_config(
        "dycon",
        **{
            "network.filters": [8, 8, 16],
            "network.half_resolution": half,
            "batch.patch_size": [16, 24, 32],
        },
    )
    network = build_network(config, channels=2, classes=3)
    output = network(torch.randn(1, 2, 16, 24, 32), embed=True)
    assert output.logits.shape == (1, 3, 16, 24, 32)
    assert output.embeddings is not None
    assert output.embeddings.shape[2:] == tuple(
        2 * n // config.network.stride for n in (16, 24, 32)
    )


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recomputed_features_give_the_same_gradients(half: bool, dtype: torch.dtype) -> None:
    config = make_config(
        "dycon",
        **{
            "network.filters": [8, 8, 16],
            "network.half_resolution": half,
            "batch.patch_size": [16, 24, 32],
        },
    )
    network = build_network(config, channels=1, classes=2)
    image = torch.randn(2, 1, 16, 24, 32)
    found, kept = [], []
    for again in (False, True):
        network.activation_checkpointing = again
        network.zero_grad()
        storages: dict[int, int] = {}

        def keep(tensor: torch.Tensor, seen: dict[int, int] = storages) -> torch.Tensor:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with (
            torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32),
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        ):
            output = network(image, embed=True)
            assert output.embeddings is not None
            loss = output.logits.float().square().mean() + output.embeddings[:, 0].float().mean()
        kept.append(sum(storages.values()))
        loss.backward()
        found.append([p.grad for p in network.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 10
    assert all(map(torch.equal, *found))
    assert kept[1] < 0.6 * kept[0]


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_embeddings_do_not_depend_on_other_patches_of_a_batch(norm: str) -> None:
    """Otherwise what a teacher embeds would hang on what it happens to see beside it."""
    config = make_config(
        "dycon",
        **{
            "network.filters": [8, 8, 12],
            "network.half_resolution": False,
            "batch.patch_size": [16, 16, 16],
            "network.norm": norm,
            "network.aspp": True,
        },
    )
    network = build_network(config, channels=1, classes=2).train()
    patches = torch.randn(3, 1, 16, 16, 16)
    together, alone = network.encode(patches), network.encode(patches[:1])
    assert torch.allclose(together[:1], alone, atol=1e-5)


@pytest.mark.parametrize("negative_gamma", [0.0, 1.0])
def test_embeddings_of_different_classes_are_separated(negative_gamma: float) -> None:
    """Bright balls in noise: their cells end up alike, and far from those around them."""
    torch.manual_seed(0)
    config = make_config(
        "dycon",
        **{
            "network.filters": [4, 8, 8],
            "network.half_resolution": False,
            "network.projection_hidden": 16,
            "network.projection_dim": 8,
        },
    )
    network = build_network(config, channels=1, classes=2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    distance = (torch.stack(torch.meshgrid(*[torch.arange(16.0)] * 3, indexing="ij")) - 7.5).norm(
        dim=0
    )
    label = (distance < 5).long().expand(2, -1, -1, -1)
    groups = downsample_labels(label, 2, (8, 8, 8))
    inside, outside = groups[0] == 1, groups[0] == 0
    for _ in range(60):
        z = flatten_spatial(network.encode(torch.randn(2, 1, 16, 16, 16) + label[:, None]))
        optimizer.zero_grad()
        fecl(z, groups, torch.zeros(groups.shape), negative_gamma=negative_gamma).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    similarity = (z[0] @ z[0].T).detach()
    assert similarity[inside][:, inside].mean() > 0.7
    assert similarity[inside][:, outside].mean() < 0.0


def test_a_head_whose_features_are_nearly_alike_still_learns() -> None:
    config = make_config(
        "dycon",
        **{
            "network.filters": [4, 8, 8],
            "network.half_resolution": False,
            "batch.patch_size": [16, 16, 16],
        },
    )
    head = build_network(config, channels=1, classes=2).projection
    features = torch.ones(1, 8, 2, 2, 2) + 1e-3 * torch.randn(1, 8, 2, 2, 2)
    z = flatten_spatial(head(features))
    assert torch.allclose(z.norm(dim=2), torch.ones(z.shape[:2]), atol=1e-5)
    labels = (torch.arange(64) < 32).long()[None]
    fecl(z, labels, torch.zeros(1, 64)).backward()
    gradient = head.layers[0].weight.grad  # type: ignore[union-attr]
    assert gradient is not None
    assert 1e-3 < gradient.norm() < 1e3


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_patch_with_equal_embeddings_gives_finite_gradients(value: float) -> None:
    """A bottleneck of a single cell: eight embeddings of one vector have no direction at all."""
    config = make_config(
        "dycon",
        **{
            "network.filters": [4, 8, 8],
            "network.half_resolution": False,
            "batch.patch_size": [4, 4, 4],
        },
    )
    head = build_network(config, channels=1, classes=2).projection.train()
    features = torch.full((2, 8, 1, 1, 1), value, requires_grad=True)
    z = flatten_spatial(head(features))
    assert z.shape == (2, 8, 64)
    fecl(z, torch.tensor([[0, 1] * 4] * 2), torch.zeros(2, 8)).backward()
    assert torch.isfinite(z).all()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)
    assert sum(float(p.grad.norm()) for p in head.parameters() if p.grad is not None) < 1.0


def test_half_resolution_separates_neighboring_voxels() -> None:
    """Single voxels at random places are lost at half the resolution; the last layer sees them."""
    torch.manual_seed(0)
    config = make_config(
        "supervised", **{"network.filters": [8, 8, 8], "network.half_resolution": True}
    )
    network = build_network(config, channels=1, classes=2)
    image = (torch.rand(1, 1, 16, 16, 16) < 0.5).float()
    label = image[:, 0].long()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(image).logits, label).backward()
        optimizer.step()
    right = (network(image).logits.argmax(dim=1) == label).float().mean()
    assert right > 0.98


def test_a_class_with_negative_weights_on_all_filters_can_still_be_predicted() -> None:
    head = FullResolutionHead(features=4, channels=1, classes=2)
    norm, out = head.layers[1], head.layers[3]
    assert isinstance(norm, torch.nn.GroupNorm)
    assert isinstance(out, torch.nn.Conv3d)
    assert out.bias is not None
    with torch.no_grad():
        norm.bias.fill_(-2.0)  # where no filter sees what it looks for
        out.weight[0], out.weight[1] = 0.0, -1.0
        out.bias.zero_()
    logits = head(torch.randn(1, 4, 4, 4, 4), torch.randn(1, 1, 8, 8, 8))
    assert logits.softmax(dim=1)[:, 1].mean() > 0.9


def test_every_parameter_learns() -> None:
    config = make_config(
        "dycon", **{"network.filters": [8, 8, 16], "network.half_resolution": True}
    )
    network = build_network(config, channels=1, classes=2)
    output = network(torch.randn(1, 1, 16, 16, 16), embed=True)
    assert output.embeddings is not None
    (output.logits.square().mean() + output.embeddings[:, 0].mean()).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("shape", [(3, 40, 19), (1, 1, 1), (16, 17, 33)])
def test_embeddings_keep_their_position_in_the_image(
    half: bool, shape: tuple[int, int, int]
) -> None:
    config = make_config(
        "dycon", **{"network.filters": [8, 8, 16], "network.half_resolution": half}
    )
    network = build_network(config, channels=1, classes=3)
    image = torch.randn(2, 1, *shape)
    output = network(image, embed=True)
    assert output.logits.shape == (2, 3, *shape)
    assert output.embeddings.shape[2:] == tuple(-(-2 * n // config.network.stride) for n in shape)
    assert network.encode(image).shape == output.embeddings.shape
    label = torch.zeros(2, *shape, dtype=torch.long)
    assert (downsample_labels(label, 3, output.embeddings.shape[2:]) == 0).all()
    probabilities = output.logits.softmax(dim=1)
    means = block_mean(probabilities, output.embeddings.shape[2:])
    torch.testing.assert_close(means.sum(dim=1), torch.ones_like(means[:, 0]))


@pytest.mark.parametrize("shape", [(4, 20, 20), (24, 24, 24)])
def test_a_single_image_gives_the_same_output_as_in_a_batch(shape: tuple[int, int, int]) -> None:
    scans = [Fingerprint((36, 50, 35), (1.0, 1.0, 1.0), 0.0, 900.0)]
    config = plan_training(make_config("supervised"), scans, "cpu")
    network = build_network(config, channels=1, classes=2).eval()
    images = torch.randn(2, 1, *shape)
    with torch.no_grad():
        together = network(images).logits
        for one, logits in zip(images, together, strict=True):
            torch.testing.assert_close(network(one[None]).logits[0], logits, atol=1e-4, rtol=1e-4)
    assert copy.deepcopy(network).state_dict().keys() == network.state_dict().keys()


def test_a_half_resolution_run_trains_resumes_and_predicts(project: Project) -> None:
    settings = TINY | {"network.half_resolution": True, "steps": 3, "intervals.checkpoint_s": 0.0}
    interrupted = train(project, make_config("dycon", **settings))
    for event in interrupted:
        if event.event == "checkpoint" and event.step == 2:
            interrupted.close()  # type: ignore[attr-defined]
            break
    run = project.runs.list()[-1]
    events = list(train(project, TrainConfig.from_dict(run.read_config()), run))
    assert (events[-1].event, events[-1].step) == ("finished", 3)
    model = load_model(run.weights_path, torch.device("cpu"))
    assert model.student.fine is not None
    cpu = torch.device("cpu")
    done = list(predict_cases(project, run.id, model, ["scan-1"], cpu, torch.float32))
    assert done[0].event == "predicted"
    assert project.predictions.read(run.id, "scan-1") is not None


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("shape", [(17, 23, 31), (1, 40, 9), (33, 16, 48), (2, 3, 5)])
def test_inputs_may_have_any_size(half: bool, shape: tuple[int, int, int]) -> None:
    config = make_config(
        "supervised", **{"network.filters": [8, 8, 16, 16], "network.half_resolution": half}
    )
    network = build_network(config, channels=2, classes=3).eval()
    with torch.inference_mode():
        logits = network(torch.randn(1, 2, *shape)).logits
    assert logits.shape == (1, 3, *shape)
    assert torch.isfinite(logits).all()


def test_a_scan_of_odd_size_equals_its_padded_scan_away_from_the_border() -> None:
    """Sides that are rounded up must not shift what is seen."""
    config = make_config(
        "supervised",
        **{"network.filters": [8, 8, 16], "network.half_resolution": True, "network.norm": "batch"},
    )
    network = build_network(config, channels=1, classes=2).eval()
    assert network.fine is not None
    network.fine.layers[1] = torch.nn.Identity()  # a norm over the whole scan
    padded = torch.zeros(1, 1, 112, 112, 112)
    padded[..., :109, :110, :111] = torch.randn(109, 110, 111)
    with torch.inference_mode():
        odd = network(padded[..., :109, :110, :111].contiguous()).logits
        even = network(padded).logits
    torch.testing.assert_close(odd[..., :24, :24, :24], even[..., :24, :24, :24])


def test_gradients_in_bfloat16_do_not_read_freed_memory() -> None:
    """Convolutions over two voxels read uninitialized memory on some processors."""
    torch.manual_seed(0)
    config = make_config(
        "supervised", **{"network.filters": [8, 16, 32, 32], "network.half_resolution": True}
    )
    network = build_network(config, channels=1, classes=2).train()
    image, label = torch.randn(2, 1, 32, 48, 32), torch.randint(0, 2, (2, 32, 48, 32))

    def gradients(enabled: bool) -> list[torch.Tensor]:
        network.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            logits = network(image).logits
        torch.nn.functional.cross_entropy(logits.float(), label).backward()
        return [p.grad for p in network.backbone.bottleneck.parameters() if p.grad is not None]

    exact, before = gradients(False), gradients(True)
    for _ in range(8):
        junk = [torch.full((2**k,), float("nan")) for k in range(6, 16) for _ in range(8)]
        del junk
        found = gradients(True)
        for first, again, wanted in zip(before, found, exact, strict=True):
            assert torch.equal(first, again)
            assert (again - wanted).norm() < 0.5 * wanted.norm()
