"""Loss terms of each method: labeled or unlabeled half, weights, ablation settings."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.tiny_runs import TINY
from torch import Tensor, nn

from napari_dycon.engine.config import TrainConfig, make_config
from napari_dycon.engine.data.cases import LabeledCase
from napari_dycon.engine.data.patches import Batch, LabeledBatch, PatchBatchDataset, UnlabeledBatch
from napari_dycon.engine.losses.consistency import consistency_mse
from napari_dycon.engine.losses.feature_grid import (
    downsample_entropy_from_log_p,
    downsample_labels,
    downsample_pseudo_labels,
    region_indices,
)
from napari_dycon.engine.losses.fecl import fecl
from napari_dycon.engine.losses.secl import secl
from napari_dycon.engine.losses.supervised import supervised_loss
from napari_dycon.engine.losses.uncl import uncl
from napari_dycon.engine.methods import build_method
from napari_dycon.engine.methods.base import StepInputs, add_input_noise
from napari_dycon.engine.network import NetworkOutput, update_ema
from napari_dycon.engine.presets import list_presets
from napari_dycon.errors import ConfigError

CLASSES, GRID = 3, (4, 4, 4)


class Pointwise(nn.Module):
    """A network one can compute by hand: every voxel and every cell by itself."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.voxel = nn.Parameter(torch.randn(CLASSES, generator=g) * 3)
        self.cell = nn.Parameter(torch.randn(5, generator=g) * 3)
        self.shift = nn.Parameter(torch.randn(5, generator=g))

    def __call__(self, image: Tensor, embed: bool = False) -> NetworkOutput:
        logits = image * self.voxel.view(1, -1, 1, 1, 1)
        return NetworkOutput(logits, self.encode(image) if embed else None)

    def encode(self, image: Tensor) -> Tensor:
        mean = F.adaptive_avg_pool3d(image, GRID)
        z = mean * self.cell.view(1, -1, 1, 1, 1) + self.shift.view(1, -1, 1, 1, 1)
        return F.normalize(z, dim=1)


def make_batch(seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    image = torch.randn(5, 1, 8, 8, 8, generator=g)
    # Even blocks, so that cells are not all of one class.
    image = F.interpolate(torch.randn(5, 1, *GRID, generator=g) * 2, size=(8, 8, 8)) + image * 0.3
    label = (image[:2, 0] > 0.2).long() + (image[:2, 0] > 1.5).long()
    label[0, :2] = 255
    place = torch.rand(5, 3, generator=g) * 0.4 + 0.3
    extent = torch.full((5, 3), 0.5)
    return Batch(
        LabeledBatch(image[:2], label, place[:2], extent[:2]),
        UnlabeledBatch(image[2:], place[2:], extent[2:]),
    )


def make_step(progress: float = 0.3) -> StepInputs:
    student, teacher = Pointwise(1), Pointwise(2)
    noise = torch.Generator().manual_seed(7)
    return StepInputs(student, teacher, make_batch(), progress, noise)  # type: ignore[arg-type]


def make_small_config(method: str, **changes: Any) -> TrainConfig:
    return make_config(method, **(TINY | {"semi_supervised.pseudo_label_threshold": 0.6} | changes))


def compute_terms(config: TrainConfig, progress: float = 0.3) -> dict[str, float]:
    found = build_method(config).compute_loss_terms(make_step(progress))
    return {name: float(value.detach()) for name, value in found.items()}


def seen(step: StepInputs, image: Tensor) -> Tensor:
    return add_input_noise(image, torch.Generator().manual_seed(7), 0.1)


def test_a_step_of_dycon_equals_its_formula() -> None:
    step, progress = make_step(), 0.3
    labeled, unlabeled = step.batch.labeled, step.unlabeled
    image = torch.cat([labeled.image, unlabeled.image])
    student, teacher = step.student(image, embed=True), step.teacher(seen(step, image), embed=True)
    beta = 5.0 * (0.5 / 5.0) ** progress
    ramped = 0.1 * math.exp(-5 * (1 - progress / 0.4) ** 2)
    guess = F.softmax(teacher.logits[2:], dim=1)
    groups = torch.cat(
        [
            downsample_labels(labeled.label, CLASSES, GRID),
            downsample_pseudo_labels(guess, GRID, 0.6),
        ]
    )
    assert {-1, 0, 1} <= set(groups.flatten().tolist())  # both classes and ignored locations
    z, z_t = (out.embeddings.flatten(2).transpose(1, 2) for out in (student, teacher))
    normalized_entropy = downsample_entropy_from_log_p(F.log_softmax(student.logits, dim=1), GRID)
    expected = {
        "supervised": supervised_loss(student.logits[:2], labeled.label),
        "uncl": 0.5 * uncl(student.logits, teacher.logits, beta),
        "fecl": 0.5 * 0.1 * fecl(z, groups, normalized_entropy, z_t),
        "consistency": ramped * consistency_mse(student.logits[2:], teacher.logits[2:]),
    }
    assert compute_terms(make_small_config("dycon"), progress) == {
        name: pytest.approx(float(value.detach()), rel=1e-5) for name, value in expected.items()
    }


@pytest.mark.parametrize("name", ["fecl.negative_gamma", "fecl.teacher_weight", "fecl.focal_gamma"])
def test_fecl_weights_are_not_negative(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"Setting {name} is -1\.0; expected 0 to 1"):
        make_small_config("dycon", **{name: -1.0})


@pytest.mark.parametrize("preset", [name for name in list_presets() if name != "default"])
def test_published_settings_give_the_published_fecl_weights(preset: str) -> None:
    config = make_config("dycon", preset)
    assert (config.fecl.weight, config.fecl.teacher_weight) == (1.0, 1.0)
    assert (config.fecl.negative_gamma, config.fecl.focal_gamma, config.fecl.temperature) == (
        0.0,
        2.0,
        0.6,
    )


def test_fecl_uses_the_threshold_of_the_step_for_teacher_locations() -> None:
    """λ and θ(t) as published: more of the pairs count early in a run."""
    early, late = (
        compute_terms(
            make_small_config("dycon", **{"fecl.weight": 1.0, "fecl.teacher_weight": 1.0}), progress
        )["fecl"]
        - compute_terms(make_small_config("dycon", **{"fecl.weight": 1.0}), progress)["fecl"]
        for progress in (0.0, 1.0)
    )
    assert early > 0
    assert late > 0
    assert early != late


@pytest.mark.parametrize("method", ["dycon", "mean-teacher", "secl-region", "secl-anatomical"])
def test_the_student_learns_and_the_teacher_does_not(method: str) -> None:
    step = make_step()
    sum(build_method(make_small_config(method)).compute_loss_terms(step).values()).backward()
    assert all(p.grad is None for p in step.teacher.parameters())
    assert torch.count_nonzero(step.student.voxel.grad) == CLASSES


@pytest.mark.parametrize(
    ("setting", "value", "part"),
    [
        ("uncl.weight", 0.0, "uncl"),
        ("uncl.entropy_weight", 0.0, "uncl"),
        ("uncl.beta_max", 2.0, "uncl"),
        ("uncl.beta_min", 2.0, "uncl"),
        ("fecl.weight", 0.0, "fecl"),
        ("fecl.entropy_weighting", False, "fecl"),
        ("fecl.negative_gamma", 1.0, "fecl"),
        ("fecl.teacher_weight", 1.0, "fecl"),
        ("fecl.cross_patch", True, "fecl"),
        ("fecl.focal_gamma", 0.0, "fecl"),
        ("fecl.temperature", 0.3, "fecl"),
        ("semi_supervised.pseudo_label_threshold", 1.0, "fecl"),
        ("semi_supervised.consistency_weight", 0.0, "consistency"),
        ("semi_supervised.consistency_rampup", 1.0, "consistency"),
    ],
)
def test_each_option_of_dycon_changes_only_its_own_term(
    setting: str, value: Any, part: str
) -> None:
    usual, switched = (
        compute_terms(make_small_config("dycon")),
        compute_terms(make_small_config("dycon", **{setting: value})),
    )
    assert [name for name in usual if usual[name] != switched[name]] == [part]
    if value == 0.0 and setting in (f"{part}.weight", f"semi_supervised.{part}_weight"):
        assert switched[part] == 0.0


def test_the_unlabeled_weight_scales_both_losses() -> None:
    usual, half = (
        compute_terms(make_small_config("dycon")),
        compute_terms(make_small_config("dycon", **{"semi_supervised.weight": 0.25})),
    )
    for name in ("uncl", "fecl"):
        assert half[name] == pytest.approx(usual[name] / 2)
    assert half["supervised"] == usual["supervised"]


def test_mean_teacher_compares_the_unlabeled_half() -> None:
    step, progress = make_step(), 0.1
    labeled, unlabeled = step.batch.labeled, step.unlabeled
    mine = step.student(unlabeled.image).logits
    teacher_logits = step.teacher(seen(step, unlabeled.image)).logits
    ramped = 0.1 * math.exp(-5 * (1 - progress / 0.4) ** 2)
    own = supervised_loss(step.student(labeled.image).logits, labeled.label)
    assert compute_terms(make_small_config("mean-teacher"), progress) == {
        "supervised": pytest.approx(float(own.detach()), rel=1e-5),
        "consistency": pytest.approx(
            float(ramped * consistency_mse(mine, teacher_logits).detach())
        ),
    }


@pytest.mark.parametrize("method", ["secl-region", "secl-anatomical"])
def test_secl_contrasts_unlabeled_locations(method: str) -> None:
    step = make_step()
    unlabeled = step.unlabeled
    view = seen(step, unlabeled.image)
    z, z_t = (
        maps.flatten(2).transpose(1, 2)
        for maps in (step.student.encode(unlabeled.image), step.teacher.encode(view))
    )
    if method == "secl-region":
        groups = region_indices(unlabeled.patch_center, unlabeled.patch_size, GRID, (4, 4, 4))
    else:
        groups = downsample_pseudo_labels(F.softmax(step.teacher(view).logits, dim=1), GRID, 0.6)
    assert len(set(groups.flatten().tolist())) > 2
    expected = 0.1 * secl(z, z_t, groups)
    found = compute_terms(make_small_config(method))
    assert found["secl"] == pytest.approx(float(expected.detach()), rel=1e-5)
    assert compute_terms(make_small_config(method, **{"secl.weight": 0.2}))[
        "secl"
    ] == pytest.approx(2 * found["secl"])


def test_locations_of_a_mirrored_patch_keep_their_side(tmp_path: Any) -> None:
    label = np.zeros((24, 24, 40), np.uint8)
    label[..., 20:] = 1  # the side of the larger coordinate
    np.save(tmp_path / "i.npy", np.random.default_rng(0).random((1, 24, 24, 40)).astype(np.float32))
    np.save(tmp_path / "l.npy", label)
    case = LabeledCase("a", tmp_path / "i.npy", tmp_path / "l.npy")
    config = make_small_config(
        "supervised",
        **{
            "augmentation.flip_left_right": True,
            "augmentation.max_rotation_degrees": 0.0,
            "augmentation.scale_range": 0.0,
        },
    )
    batches = PatchBatchDataset([case], [], config)
    turned = 0
    for step in range(30):
        patch = batches[step].augment(torch.device("cpu")).labeled
        sides = region_indices(patch.patch_center, patch.patch_size, (1, 1, 16), (1, 1, 2))
        assert torch.equal(sides[0], patch.label[0, 8, 8])
        turned += int(patch.patch_size[0, 2] < 0)
    assert 5 < turned < 25


def test_the_teacher_is_an_average_and_buffers_are_copied() -> None:
    student, teacher = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    nn.init.constant_(student.weight, 3.0)
    student.running_mean.fill_(5.0)
    update_ema(teacher, student, 0.75)
    assert teacher.weight.tolist() == [1.5, 1.5]
    assert teacher.running_mean.tolist() == [5.0, 5.0]
    assert student.weight.tolist() == [3.0, 3.0]


def test_an_empty_half_of_a_batch_adds_no_loss() -> None:
    step = make_step()
    none = UnlabeledBatch(torch.zeros(0, 1, 8, 8, 8), torch.zeros(0, 3), torch.zeros(0, 3))
    step = replace(step, batch=Batch(step.batch.labeled, none))
    for method, part in (
        ("dycon", "consistency"),
        ("mean-teacher", "consistency"),
        ("secl-region", "secl"),
        ("secl-anatomical", "secl"),
    ):
        found = build_method(make_small_config(method)).compute_loss_terms(step)
        assert float(found[part].detach()) == 0.0
        assert all(torch.isfinite(value) for value in found.values())
