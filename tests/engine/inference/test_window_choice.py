"""The window size of predictions, chosen on labeled scans."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_runs import TINY

from napari_dycon.engine.checkpoints.model_file import TrainedModel, load_model, save_weights
from napari_dycon.engine.config import make_config
from napari_dycon.engine.data.cases import LabeledCase
from napari_dycon.engine.inference import window_choice
from napari_dycon.engine.inference.window_choice import LARGER_SIDE, choose_window_side
from napari_dycon.engine.network import build_network
from napari_dycon.engine.training.run import train
from napari_dycon.project.store import Project

CPU = torch.device("cpu")


@pytest.fixture
def model() -> TrainedModel:
    config = make_config(
        "supervised",
        **(TINY | {"batch.patch_size": [16, 16, 16], "preprocessing.spacing": [1.0, 1.0, 1.0]}),
    )
    network = build_network(config, 1, 2)
    return TrainedModel(network, network, config, (1,), 1)


def save_case(folder: Path, label: np.ndarray[Any, Any], name: str = "a") -> LabeledCase:
    """A prepared case, bright where it is labeled."""
    image = np.random.default_rng(0).normal(0, 0.1, label.shape) + (label == 1)
    np.save(folder / f"{name}.image.npy", image[None].astype(np.float16))
    np.save(folder / f"{name}.label.npy", label)
    return LabeledCase(name, folder / f"{name}.image.npy", folder / f"{name}.label.npy")


def make_block(shape: tuple[int, int, int] = (40, 40, 40)) -> np.ndarray[Any, Any]:
    label = np.zeros(shape, np.uint8)
    label[10:20, 24:36, 12:30] = 1
    return label


@pytest.mark.parametrize(("worst", "side"), [(1.0, LARGER_SIDE), (1.25, 1.0)])
def test_larger_windows_are_chosen_unless_they_score_worse(
    model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worst: float, side: float
) -> None:
    """A network that sees nothing in windows of one of the sizes."""

    def predict(_: Any, used: TrainedModel, image: torch.Tensor, *__: Any) -> torch.Tensor:
        bright = (image[0] > 0.5) & (used.window_side != worst)
        return torch.stack([~bright, bright]).float()

    monkeypatch.setattr(window_choice, "predict_probabilities", predict)
    assert (
        choose_window_side(model, [save_case(tmp_path, make_block())], CPU, torch.float32) == side
    )


def test_the_evaluated_region_contains_a_structure_and_is_minimal(
    model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def predict(_: Any, __: TrainedModel, image: torch.Tensor, *___: Any) -> torch.Tensor:
        seen.append((tuple(image.shape[1:]), bool((image > 0.5).any())))
        return torch.ones(2, *image.shape[1:])

    monkeypatch.setattr(window_choice, "predict_probabilities", predict)
    monkeypatch.setattr(window_choice, "MIN_DICE", 0.0)
    label = np.zeros((100, 20, 90), np.uint8)
    label[2:6, 3:8, 4:9] = label[90:97, 3:8, 80:85] = 1
    cases = [save_case(tmp_path, label, str(number)) for number in range(6)]
    choose_window_side(model, cases, CPU, torch.float32)
    assert seen == [((28, 20, 28), True)] * 8


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory.")])
def test_without_labels_files_or_memory_windows_have_the_patch_size(
    model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: Any) -> None:
        raise error

    empty = save_case(tmp_path, np.zeros((20, 20, 20), np.uint8))
    gone = LabeledCase("b", tmp_path / "b.npy", tmp_path / "c.npy")
    for cases in ([], [empty], [gone]):
        assert choose_window_side(model, cases, CPU, torch.float32) == 1.0
    monkeypatch.setattr(window_choice, "predict_probabilities", refuse)
    assert choose_window_side(model, [save_case(tmp_path, make_block())], CPU, torch.float32) == 1.0


@pytest.mark.parametrize("reason", ["too small", "hardly learned", "no time"])
def test_without_evidence_windows_have_the_patch_size(
    model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    def predict(_: Any, __: TrainedModel, image: torch.Tensor, *___: Any) -> torch.Tensor:
        bright = image[0] > (5.0 if reason == "hardly learned" else 0.5)
        return torch.stack([~bright, bright]).float()

    monkeypatch.setattr(window_choice, "predict_probabilities", predict)
    label = make_block()
    if reason == "too small":
        label = np.zeros((16, 16, 16), np.uint8)
        label[4:9, 4:9, 4:9] = 1
    case = save_case(tmp_path, label)
    if reason == "no time":
        assert choose_window_side(model, [case], CPU, torch.float32) == LARGER_SIDE
        monkeypatch.setattr(window_choice, "MAX_DURATION_S", -1.0)
    assert choose_window_side(model, [case], CPU, torch.float32) == 1.0


def test_weights_store_their_window_size(model: TrainedModel, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(path, dataclasses.replace(model, window_side=LARGER_SIDE), 3)
    assert load_model(path).window_side == LARGER_SIDE


@pytest.mark.parametrize(("tolerated", "side"), [(2.0, LARGER_SIDE), (-2.0, 1.0)])
def test_a_run_chooses_its_window_size_at_the_end(
    project: Project, monkeypatch: pytest.MonkeyPatch, tolerated: float, side: float
) -> None:
    monkeypatch.setattr(window_choice, "MAX_DICE_LOSS", tolerated)
    monkeypatch.setattr(window_choice, "MIN_DICE", 0.0)
    list(train(project, make_config("supervised", **TINY)))
    assert load_model(project.runs.get().weights_path).window_side == side
    assert project.runs.get().read_metrics().window_side == side
