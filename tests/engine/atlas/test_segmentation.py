"""Atlas fusion at inference: labeled scans as atlases for another scan."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_runs import TINY

from napari_dycon.core.types import UNANNOTATED
from napari_dycon.engine.atlas.registered_cases import warp_case
from napari_dycon.engine.atlas.segmentation import load_atlases, segment_with_atlases
from napari_dycon.engine.checkpoints.model_file import TrainedModel, load_model
from napari_dycon.engine.config import make_config
from napari_dycon.engine.data.cases import LabeledCase
from napari_dycon.engine.inference.predict import predict_volume
from napari_dycon.engine.inference.predict_scans import predict_cases
from napari_dycon.engine.inference.uncertainty import compute_uncertainty_maps, normalized_entropy
from napari_dycon.engine.training.run import train
from napari_dycon.project.runs.run import Run
from napari_dycon.project.store import Project

CPU = torch.device("cpu")
SHAPE = (24, 28, 26)


def make_organ(center: tuple[int, int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A scan with a bright ball beside a dark one, and its label."""
    places = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    r = np.sqrt(((places - np.array(center)) ** 2).sum(-1))
    other = np.sqrt(((places - np.array(center) - (0, 9, 0)) ** 2).sum(-1))
    image = 3.0 * (r < 6) - 2.0 * (other < 4) + np.random.default_rng(seed).normal(0, 0.2, SHAPE)
    return image[None].astype(np.float32), (r < 6).astype(np.uint8)


def make_atlas(folder: Path, name: str, image: np.ndarray, label: np.ndarray) -> LabeledCase:
    np.save(folder / f"{name}.npy", image)
    np.save(folder / f"{name}-label.npy", label)
    return LabeledCase(name, folder / f"{name}.npy", folder / f"{name}-label.npy")


@pytest.fixture
def atlases(tmp_path: Path) -> list[LabeledCase]:
    centers = ((11, 11, 12), (13, 12, 14))
    return [make_atlas(tmp_path, f"v{n}", *make_organ(c, n)) for n, c in enumerate(centers)]


def compute_dice(probabilities: torch.Tensor, label: np.ndarray) -> float:
    found = probabilities.argmax(dim=0).numpy() == 1
    return float(2 * (found & (label == 1)).sum() / (found.sum() + (label == 1).sum()))


def test_atlases_segment_the_organ(atlases: list[LabeledCase]) -> None:
    image, label = make_organ((12, 14, 11), 9)
    probabilities = segment_with_atlases(image, [atlases], 2, CPU)
    assert probabilities is not None
    assert probabilities.shape == (2, *SHAPE)
    torch.testing.assert_close(probabilities.sum(dim=0), torch.ones(SHAPE))
    assert compute_dice(probabilities, label) > 0.9
    again = segment_with_atlases(image, [atlases], 2, CPU)
    assert again is not None
    assert torch.equal(probabilities, again)


def test_the_most_similar_atlases_are_used(atlases: list[LabeledCase], tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for number in range(3):  # noise, with labels anywhere
        noise = rng.normal(size=(1, *SHAPE)).astype(np.float32)
        label = np.zeros(SHAPE, np.uint8)
        label[2:6, 2:6, 2:6] = 1
        atlases.insert(0, make_atlas(tmp_path, f"n{number}", noise, label))
    for number, center in enumerate(((12, 12, 13), (12, 13, 12))):
        atlases.append(make_atlas(tmp_path, f"m{number}", *make_organ(center, 20 + number)))
    image, label = make_organ((12, 14, 11), 9)
    probabilities = segment_with_atlases(image, [atlases], 2, CPU)
    assert probabilities is not None
    assert compute_dice(probabilities, label) > 0.9


def test_atlases_that_do_not_match_are_not_used(tmp_path: Path) -> None:
    image, _ = make_organ((12, 14, 11), 9)
    one, two = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    one[3:8, 3:8, 3:8], two[15:20, 15:20, 15:20] = 1, 1
    scan, _ = make_organ((12, 12, 12), 1)
    atlases = [make_atlas(tmp_path, "a", scan, one), make_atlas(tmp_path, "b", scan, two)]
    assert segment_with_atlases(image, [atlases], 2, CPU) is None
    assert segment_with_atlases(image, [], 2, CPU) is None
    assert (
        segment_with_atlases(np.concatenate([image, image]), [atlases], 2, CPU) is None
    )  # other channels


def test_unannotated_voxels_of_an_atlas_are_not_used(tmp_path: Path) -> None:
    image, _ = make_organ((12, 12, 12), 1)
    scan, label = make_organ((12, 12, 12), 2)
    label[:12] = UNANNOTATED
    probabilities = segment_with_atlases(image, [[make_atlas(tmp_path, "a", scan, label)]], 2, CPU)
    assert probabilities is not None
    assert bool((probabilities[0, :8] == 1).all())
    assert float(probabilities[1, 14].max()) == 1.0


def test_a_single_atlas_is_used_if_its_structure_has_contrast(tmp_path: Path) -> None:
    scan, label = make_organ((12, 12, 12), 2)
    alone = [[make_atlas(tmp_path, "a", scan, label)]]
    assert segment_with_atlases(make_organ((12, 13, 11), 3)[0], alone, 2, CPU) is not None
    dark, _ = make_organ((12, 13, 11), 4)
    assert segment_with_atlases(np.minimum(dark, 0.3), alone, 2, CPU) is None  # no such ball there


def test_a_scan_is_not_an_atlas_of_itself(atlases: list[LabeledCase]) -> None:
    image, label = make_organ((11, 11, 12), 0)  # of the first atlas
    own = segment_with_atlases(image, [atlases], 2, CPU)
    other = segment_with_atlases(image, [atlases[1:]], 2, CPU)
    assert own is not None
    assert other is not None
    assert torch.equal(own, other)
    assert segment_with_atlases(image, [atlases[:1]], 2, CPU) is None
    assert (
        segment_with_atlases(image, [atlases[:1], atlases], 2, CPU) is None
    )  # there is no other atlas
    rounded = segment_with_atlases(image.astype(np.float16).astype(np.float32), [atlases], 2, CPU)
    assert rounded is not None
    assert float((rounded - own).abs().mean()) < 1e-3
    assert compute_dice(other, label) < 1.0


def test_atlases_of_all_groups_are_used(atlases: list[LabeledCase], tmp_path: Path) -> None:
    image, _ = make_organ((12, 14, 11), 9)
    wide = [make_atlas(tmp_path, "w", *make_organ((12, 13, 12), 31))]
    label = np.load(wide[0].label)
    np.save(wide[0].label, np.roll(label, 2, axis=2))  # shifted labels
    without, together = (
        segment_with_atlases(image, [atlases], 2, CPU),
        segment_with_atlases(image, [atlases, wide], 2, CPU),
    )
    assert without is not None
    assert together is not None
    places = torch.arange(SHAPE[2])
    center = [(v[1].sum(dim=(0, 1)) * places).sum() / v[1].sum() for v in (without, together)]
    assert float(center[1] - center[0]) > 0.1


def test_atlas_fusion_has_a_weight() -> None:
    g = torch.Generator().manual_seed(0)
    members = [torch.softmax(torch.randn(3, 2, 3, 4, generator=g), 0) for _ in range(2)]
    other = torch.softmax(torch.randn(3, 2, 3, 4, generator=g), 0)
    mean, uncertainty, disagreement = compute_uncertainty_maps(members, other, 0.3)
    wanted = 0.35 * members[0] + 0.35 * members[1] + 0.3 * other
    torch.testing.assert_close(mean, wanted)
    torch.testing.assert_close(uncertainty, normalized_entropy(wanted))
    each = (
        0.35 * normalized_entropy(members[0])
        + 0.35 * normalized_entropy(members[1])
        + 0.3 * normalized_entropy(other)
    )
    torch.testing.assert_close(disagreement, (normalized_entropy(wanted) - each).clamp(min=0.0))


def train_run(project: Project, **changes: object) -> tuple[Run, TrainedModel]:
    config = make_config("dycon", **(TINY | {"steps": 2} | changes))
    list(train(project, config))
    run = project.runs.list()[-1]
    return run, load_model(run.weights_path)


def test_a_run_stores_its_atlases(project: Project) -> None:
    run, model = train_run(project, **{"atlas.weight": 0.3})
    labeled = [case.id for case in project.labeled_cases()]
    assert [v.id for v in load_atlases(project, run, model.config)] == labeled
    for cached in project.cache_folder.glob("*.npy"):
        cached.unlink()
    found = load_atlases(project, run, model.config)
    assert all(v.image.exists() for v in found)
    project.image_paths(labeled[0])[0].unlink()
    assert [v.id for v in load_atlases(project, run, model.config)] == labeled[1:]
    without = model.config.with_changes({"atlas.weight": 0.0})
    assert load_atlases(project, run, without) == ()


def test_the_label_of_a_scan_is_not_used_to_predict_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, model = train_run(project, **{"atlas.weight": 0.3})
    model = dataclasses.replace(model, atlases=(load_atlases(project, run, model.config),))
    asked: list[list[str]] = []

    def deformed(case: LabeledCase, *how: object) -> tuple[np.ndarray, np.ndarray]:
        asked[-1].append(case.id)
        return warp_case(case, *how)

    monkeypatch.setattr("napari_dycon.engine.atlas.segmentation.warp_case", deformed)
    labeled = [case.id for case in project.labeled_cases()]
    for case in labeled:
        asked.append([])
        list(predict_cases(project, run.id, model, [case], CPU, torch.float32))
        assert asked[-1] == [other for other in labeled if other != case]
    asked.append([])
    predict_volume(model, project.read_image(labeled[0]), CPU, fast=True)
    assert asked[-1] == []  # previews do without


def test_atlas_fusion_changes_a_prediction(project: Project) -> None:
    run, model = train_run(project, **{"atlas.weight": 0.9})
    atlases = load_atlases(project, run, model.config)
    volume = project.read_image(project.unlabeled_cases()[0].id)
    alone = predict_volume(model, volume, CPU)
    together = predict_volume(dataclasses.replace(model, atlases=(atlases,)), volume, CPU)
    assert alone.mask.shape == together.mask.shape == volume.shape
    assert not np.array_equal(alone.uncertainty, together.uncertainty)
    assert together.uncertainty.mean() < alone.uncertainty.mean()  # better than 2 training steps
