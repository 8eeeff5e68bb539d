"""Labeled scans warped to unlabeled ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_runs import TINY
from monai.losses.image_dissimilarity import LocalNormalizedCrossCorrelationLoss
from safetensors.torch import load_file

from napari_dycon.engine.atlas.registered_cases import plan_pairs, register_pairs
from napari_dycon.engine.atlas.registration import (
    build_local_ncc,
    register,
    registration_shape,
    sampling_grid,
    warp,
)
from napari_dycon.engine.config import TrainConfig, make_config
from napari_dycon.engine.data.cases import LabeledCase, UnlabeledCase
from napari_dycon.engine.training.run import train
from napari_dycon.errors import ProjectError
from napari_dycon.project.runs.events import RegistrationEvent
from napari_dycon.project.store import Project

SHAPE = (20, 28, 20)


def make_organ(
    center: tuple[float, float, float], radii: tuple[float, float, float]
) -> torch.Tensor:
    """An ellipsoid of three shells, and its surroundings: (1, 1, D, H, W)."""
    places = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    r = np.sqrt((((places - center) / radii) ** 2).sum(-1))
    image = np.where(r < 0.5, 3.0, np.where(r < 1.0, 1.5, np.sin(places[..., 1] / 4) * 0.3))
    image = image + np.random.default_rng(0).normal(0, 0.05, image.shape)
    return torch.from_numpy((image - image.mean()) / image.std())[None, None].float()


def compute_dice(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_registration_recovers_shape_and_position() -> None:
    moving = make_organ((10, 14, 10), (5, 6, 5))
    fixed = torch.cat([make_organ((12, 12, 9), (6, 8, 4)), make_organ((8, 16, 11), (4, 8, 6))])
    found = register(moving.expand(2, -1, -1, -1, -1), fixed)
    assert found.shape == (2, *SHAPE, 3)
    warped = warp(moving.expand(2, -1, -1, -1, -1), sampling_grid(found, SHAPE))
    for number in range(2):
        wanted = fixed[number] > 0.8
        assert compute_dice(moving[0] > 0.8, wanted) < 0.8
        assert compute_dice(warped[number] > 0.8, wanted) > 0.9


def test_local_ncc_equals_that_of_monai() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 2, 3, 6, 9, 7, generator=g, dtype=torch.float64)
    b[:, 1] = 0.0  # nothing to match there
    monai = LocalNormalizedCrossCorrelationLoss(
        spatial_dims=3, kernel_size=5, smooth_nr=0.0, smooth_dr=1.0
    )
    own, reference = a.clone().requires_grad_(), a.clone().requires_grad_()
    found, expected = -build_local_ncc(b)(own), monai(reference, b)
    torch.testing.assert_close(found, expected)
    found.backward()
    expected.backward()
    torch.testing.assert_close(own.grad, reference.grad)
    assert torch.count_nonzero(own.grad) > 0


def test_pairs_do_not_depend_on_their_neighbors() -> None:
    """An interrupted run makes the missing ones in other company."""
    moving = make_organ((10, 14, 10), (5, 6, 5)).expand(2, -1, -1, -1, -1)
    fixed = torch.cat([make_organ((12, 12, 9), (6, 8, 4)), make_organ((8, 16, 11), (4, 8, 6))])
    together = register(moving, fixed, schedule=((1, 4, 1), (1, 4, 2)))
    alone = register(moving[1:], fixed[1:], schedule=((1, 4, 1), (1, 4, 2)))
    assert torch.allclose(together[1:], alone, atol=1e-3)


def test_zero_displacement_keeps_every_voxel() -> None:
    volume = torch.rand(1, 1, *SHAPE)
    same = warp(volume, sampling_grid(torch.zeros(1, 8, 12, 8, 3), SHAPE))
    assert torch.allclose(same, volume, atol=1e-4)  # also at the border


def test_a_constant_background_does_not_disturb_the_registration() -> None:
    """Where both scans are constant, rounding must not look like a match."""
    moving, fixed = make_organ((10, 14, 10), (5, 6, 5)), make_organ((12, 12, 9), (6, 8, 4))
    moving[moving < 0.8] = -1.0
    fixed[fixed < 0.8] = -1.0
    warped = warp(moving, sampling_grid(register(moving, fixed), SHAPE))
    assert compute_dice(warped > 0.8, fixed > 0.8) > 0.85


def test_the_registration_grid_has_the_aspect_ratio_of_the_scans() -> None:
    assert registration_shape([(44, 70, 90)]) == (16, 24, 32)
    assert registration_shape([(44, 90, 70)]) == (16, 32, 24)
    assert registration_shape([(3, 20, 20)]) == (8, 20, 20)  # never less than two displacements
    flat = registration_shape([(1, 512, 512)])
    assert flat[0] == 8
    assert np.prod(flat) < 14_000  # what a thin axis takes, the others give


@pytest.fixture
def case_files(tmp_path: Path) -> tuple[list[LabeledCase], list[UnlabeledCase]]:
    """Two labeled scans (one of them sparsely) and three unlabeled ones of other sizes."""
    labeled, unlabeled = [], []
    for number in range(2):
        image = make_organ((10, 14, 10), (5, 6, 5))[0].numpy()
        label = (image[0] > 0.8).astype(np.uint8)
        if number:
            label[::2] = 255
        case = LabeledCase(f"l{number}", tmp_path / f"l{number}.npy", tmp_path / f"m{number}.npy")
        np.save(case.image, image)
        np.save(case.label, label)
        labeled.append(case)
    for number, cut in enumerate((0, 2, 4)):
        image = make_organ((11, 13, 9), (6, 7, 5))[0].numpy()[:, :, cut:]
        np.save(tmp_path / f"u{number}.npy", image)
        unlabeled.append(UnlabeledCase(f"u{number}", tmp_path / f"u{number}.npy"))
    return labeled, unlabeled


def test_every_unlabeled_scan_is_registered_to_several_labeled_ones(
    case_files: tuple[list[LabeledCase], list[UnlabeledCase]], tmp_path: Path
) -> None:
    config = make_config("dycon", **{"atlas.max_registration_pairs": 5})
    pairs = plan_pairs(*case_files, config, tmp_path)
    assert pairs == plan_pairs(*case_files, config, tmp_path)
    assert len(pairs) == len({p.registered.id for p in pairs}) == 5
    assert sorted(Counter(p.unlabeled.id for p in pairs).values()) == [1, 2, 2]
    assert len({p.unlabeled.id for p in pairs[:3]}) == 3
    assert Counter(p.labeled.id for p in pairs[:4]) == {"l0": 2, "l1": 2}
    together = plan_pairs(*case_files, config, tmp_path, n_atlases=2)
    assert len({p.unlabeled.id for p in together[:2]}) == 1
    assert len({(p.labeled.id, p.unlabeled.id) for p in together}) == 5
    assert (
        len(
            plan_pairs(
                *case_files, config.with_changes({"atlas.max_registration_pairs": 100}), tmp_path
            )
        )
        == 6
    )
    assert plan_pairs(case_files[0], [], config, tmp_path) == []


def test_warped_labels_match_their_scans_and_stay_sparse(
    case_files: tuple[list[LabeledCase], list[UnlabeledCase]], tmp_path: Path
) -> None:
    pairs = plan_pairs(
        *case_files,
        make_config("dycon", **{"atlas.max_registration_pairs": 6}),
        tmp_path / "registered",
    )
    events = list(register_pairs(pairs, torch.device("cpu")))
    assert events[-1].done == events[-1].total == 6
    for pair in pairs:
        image, label = np.load(pair.registered.image), np.load(pair.registered.label)
        assert image.shape == np.load(pair.unlabeled.image).shape == (1, *label.shape)
        known = label != 255
        assert known.all() == (pair.labeled.id == "l0")
        # Bright is organ in the source, so it has to be in what is made from it.
        bright = torch.from_numpy(image[0].astype(np.float32)) > 0.8
        assert compute_dice(bright[known], torch.from_numpy(label[known] == 1)) > 0.85


def make_settings(**changes: Any) -> TrainConfig:
    own = {
        "steps": 6,
        "semi_supervised.start": 0.5,
        "atlas.max_registration_pairs": 8,
        "atlas.registration_augmentation_fraction": 0.5,
    }
    return make_config("dycon", **(TINY | own | changes))


def test_a_run_trains_on_registered_cases_and_removes_their_files(project: Project) -> None:
    events = list(train(project, make_settings()))
    assert events[-1].event == "finished"
    assert [e.done for e in events if e.event == "registration"] == [1, 2, 3]
    assert not (project.runs.get().state_folder / "registrations").exists()
    with_warps = load_file(project.runs.get().weights_path)
    list(train(project, make_settings(**{"atlas.max_registration_pairs": 0})))
    without = load_file(project.runs.get().weights_path)
    assert any(not torch.equal(with_warps[key], without[key]) for key in with_warps)


def test_a_run_killed_during_registration_resumes_identically(project: Project) -> None:
    list(train(project, make_settings()))
    whole = load_file(project.runs.get().weights_path)
    interrupted = train(project, make_settings(**{"intervals.checkpoint_s": 0.0}))
    for event in interrupted:
        if event.event == "checkpoint" and event.step == 2:
            interrupted.close()  # type: ignore[attr-defined]
            break
    run = project.runs.list()[-1]
    events = list(train(project, TrainConfig.from_dict(run.read_config()), run))
    assert not [e for e in events if e.event == "registration"]  # they lay there already
    resumed = load_file(run.weights_path)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_stopped_run_leaves_no_files_and_recomputes_the_same(project: Project) -> None:
    run = project.runs.create("dycon", make_settings(steps=10_000).to_dict())
    for event in train(project, make_settings(steps=10_000), run):
        if isinstance(event, RegistrationEvent) and event.done == 3:
            first = [np.load(f) for f in sorted((run.state_folder / "registrations").glob("*.npy"))]
        if event.event == "step":
            run.write_control(command="stop")
    assert not (run.state_folder / "registrations").exists()
    run.write_control(command="run")
    config = TrainConfig.from_dict(run.read_config())
    step = int(run.read_metrics().step)
    for event in train(project, config.with_changes(steps=step + 1), run):
        if isinstance(event, RegistrationEvent) and event.done == 3:
            again = [np.load(f) for f in sorted((run.state_folder / "registrations").glob("*.npy"))]
    assert len(first) == 6
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ProjectError("The disk is full."), "disk is full"), (MemoryError(), "memory ran out")],
)
def test_a_run_continues_without_failed_registrations(
    project: Project, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def full(path: Path, array: object) -> None:
        raise error

    monkeypatch.setattr("napari_dycon.engine.atlas.registered_cases.save_array", full)
    events = list(train(project, make_settings()))
    assert events[-1].event == "finished"
    (warning,) = [e.message for e in events if e.event == "warning"]
    assert reason in warning


def test_a_supervised_run_uses_no_registration_augmentation(project: Project) -> None:
    events = list(train(project, make_settings().with_changes(method="supervised")))
    assert not [e for e in events if e.event == "registration"]
