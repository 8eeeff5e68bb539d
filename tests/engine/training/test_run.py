"""Training runs: methods, warnings, failures and results."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from helpers.nifti_files import save_nifti
from helpers.tiny_runs import TINY
from safetensors.torch import load_file

from napari_dycon.engine.checkpoints.model_file import load_model
from napari_dycon.engine.config import (
    METHODS,
    TrainConfig,
    make_config,
    parse_overrides,
)
from napari_dycon.engine.data.preprocessing import prepare_image
from napari_dycon.engine.device import choose_device
from napari_dycon.engine.inference.predict import predict_members
from napari_dycon.engine.inference.predict_scans import predict_cases
from napari_dycon.engine.methods.base import StepInputs
from napari_dycon.engine.methods.supervised import Supervised
from napari_dycon.engine.presets import list_presets
from napari_dycon.engine.training.run import train
from napari_dycon.errors import ConfigError, EngineError, UserError
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.models import classes_from_names
from napari_dycon.project.store import Project


def make_tiny_config(method: str = "dycon", **changes: Any) -> TrainConfig:
    return make_config(method, **(TINY | changes))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_emits_events(project: Project, method: str) -> None:
    events = list(train(project, make_tiny_config(method)))
    assert events[0].event == "started"
    assert events[0].unlabeled == (0 if method == "supervised" else 3)
    assert [e.step for e in events if e.event == "finished"] == [4]
    run = project.runs.get()
    assert run.id == events[0].run
    assert [e.event for e in run.read_events()[0]] == [e.event for e in events]
    for line in run.events_path.read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_predictions_are_on_the_grid_of_the_scan(project: Project) -> None:
    list(train(project, make_tiny_config()))
    run = project.runs.get()
    device = choose_device("cpu").device
    model = load_model(run.weights_path, device)
    events = list(predict_cases(project, run.id, model, ["scan-4"], device, torch.float32))
    assert [e.case for e in events] == ["scan-4"]
    scan = nib.load(project.image_paths("scan-4")[0])
    for kind in ("mask", "uncertainty", "disagreement"):
        found = nib.load(project.predictions.path(run.id, "scan-4", kind))
        assert found.shape == scan.shape
        assert np.array_equal(found.affine, scan.affine)
        assert np.asarray(found.dataobj).max() <= 1


def test_the_prediction_of_a_mirrored_input_is_mirrored_back(project: Project) -> None:
    list(
        train(
            project,
            make_tiny_config(
                "supervised",
                **{"inference.tta_scales": [1.0, 1.0], "inference.tta_flip_left_right": True},
            ),
        )
    )
    model = load_model(project.runs.get().weights_path)
    volume = project.read_image("scan-4")
    turned = dataclasses.replace(volume, array=volume.array[..., ::-1].copy())
    one, other_way = (prepare_image(scan, model.config) for scan in (volume, turned))
    how = volume.shape, torch.device("cpu"), torch.float32
    student, _, *mirrored = predict_members(model, one, *how, fast=False)
    other = list(predict_members(model, other_way, *how, fast=False))[:2]
    assert len(mirrored) == 2
    for back, seen in zip(mirrored, other, strict=True):
        torch.testing.assert_close(back, seen.flip(-1))
    assert not torch.allclose(mirrored[0], student)
    assert len(list(predict_members(model, one, *how, fast=True))) == 2


def test_missing_labels_are_reported_before_a_run_is_created(scans: Path, tmp_path: Path) -> None:
    bare = create_project(tmp_path / "bare", scans / "images")
    with pytest.raises(UserError, match="No case is labeled yet"):
        list(train(bare, make_tiny_config()))
    assert bare.runs.list() == []


@pytest.mark.parametrize("method", METHODS)
def test_patches_of_any_size_can_be_trained_on(project: Project, method: str) -> None:
    events = list(
        train(project, make_tiny_config(method, **{"batch.patch_size": [3, 17, 12]}, steps=2))
    )
    assert events[-1].event == "finished"
    assert all(np.isfinite(e.loss) for e in events if e.event == "step")


def test_missing_unlabeled_cases_are_reported(scans: Path, tmp_path: Path) -> None:
    for scan in (scans / "images").iterdir():
        if not (scans / "labels" / scan.name).exists():
            scan.unlink()
    project = create_project(tmp_path / "labeled", images=scans / "images", labels=scans / "labels")

    def warned(method: str) -> list[str]:
        events = list(train(project, make_tiny_config(method)))
        return [e.message for e in events if e.event == "warning"]

    (message,) = warned("mean-teacher")
    assert "No case is unlabeled" in message
    assert not warned("supervised")


def test_structures_without_an_example_are_named(project: Project) -> None:
    project.add_class("aorta")
    events = list(train(project, make_tiny_config("supervised")))
    (message,) = [e.message for e in events if e.event == "warning"]
    assert message.startswith("aorta is not annotated in any case")
    project.add_class("vein")
    events = list(train(project, make_tiny_config("supervised")))
    assert any(e.event == "warning" and "aorta and vein are not" in e.message for e in events)


@pytest.mark.parametrize(("value", "what"), [(1, "only a structure"), (0, "only background")])
def test_a_label_with_a_single_value_is_excluded_with_a_reason(
    project: Project, value: int, what: str
) -> None:
    only = np.full(project.read_image("scan-3").shape, 255, np.uint8)
    only[5:8, 5:8, 5:8] = value
    project.labels.save("scan-3", only)
    events = list(train(project, make_tiny_config("supervised")))
    warned = [e.message for e in events if e.event == "warning"]
    assert len(warned) == 1
    assert f"scan-3 is left out: {what} is annotated in it" in warned[0]
    # Once it is complete, there is no warning that the earlier run was trained on it.
    project.labels.save("scan-3", np.where(only == 255, 1 - value, only).astype(np.uint8))
    project.set_split("scan-3", "validation")
    events = list(
        train(project, make_tiny_config("supervised", init_from=project.runs.list()[-1].id))
    )
    assert not [e.message for e in events if e.event == "warning"]


def test_labels_of_two_structures_without_background_are_used(project: Project) -> None:
    project.add_class("two")
    two = np.full(project.read_image("scan-3").shape, 255, np.uint8)
    two[5:8, 5:8, 5:8], two[5:8, 5:8, 8:11] = 1, 2
    project.labels.save("scan-3", two)
    events = list(train(project, make_tiny_config("supervised")))
    assert not [e.message for e in events if e.event == "warning"]
    assert "scan-3" in project.runs.list()[-1].read_metrics().labeled


def test_scans_without_a_structure_are_used_for_training(project: Project) -> None:
    shape = project.read_image("scan-3").shape
    project.labels.save("scan-3", np.zeros(shape, np.uint8))
    events = list(train(project, make_tiny_config("dycon", **{"atlas.max_registration_pairs": 4})))
    assert not [e.message for e in events if e.event == "warning"]
    labeled = [case.id for case in project.labeled_cases()]
    assert "scan-3" in project.runs.list()[-1].read_metrics().labeled
    for case in labeled:
        project.labels.save(case, np.zeros(shape, np.uint8))
    with pytest.raises(UserError, match="none of them shows a structure"):
        list(train(project, make_tiny_config("supervised")))


@pytest.mark.parametrize("saved", [False, True])
def test_lack_of_memory_gives_advice(
    project: Project, monkeypatch: pytest.MonkeyPatch, saved: bool
) -> None:
    real, calls = Supervised.compute_loss_terms, []

    def compute_loss_terms(self: Supervised, step: StepInputs) -> dict[str, torch.Tensor]:
        calls.append(step)
        if len(calls) > 2 * saved:
            raise RuntimeError("CUDA out of memory.")
        return real(self, step)

    monkeypatch.setattr(Supervised, "compute_loss_terms", compute_loss_terms)
    with pytest.raises(EngineError, match="ran out of memory") as reported:
        list(train(project, make_tiny_config("supervised", **{"intervals.checkpoint_s": 0.0})))
    assert "--" not in str(reported.value)  # no command line options
    assert ("checkpoint is kept: the run can be resumed" in str(reported.value)) is saved


def test_nonfinite_steps_are_skipped_and_finally_end_the_run(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = Supervised.compute_loss_terms
    calls = 0

    def compute_loss_terms(self: Supervised, step: StepInputs) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        bad = calls == 2 or calls > 4
        return {k: v * (torch.nan if bad else 1.0) for k, v in usual(self, step).items()}

    monkeypatch.setattr(Supervised, "compute_loss_terms", compute_loss_terms)
    events = []
    with pytest.raises(EngineError, match="50 steps in a row gave no finite loss"):
        events += train(
            project, make_tiny_config("supervised", steps=200, **{"intervals.checkpoint_s": 0.0})
        )
    run = project.runs.get()
    warned = [e.message for e in run.read_events()[0] if e.event == "warning"]
    assert warned[0].startswith("Step 2 was skipped because its loss was not a finite number")
    assert len(warned) == 51
    assert all(torch.isfinite(value).all() for value in load_file(run.weights_path).values())


def test_invalid_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="Unknown setting color"):
        make_config("dycon", color="red")
    with pytest.raises(ConfigError, match="cannot be 'fast'"):
        make_config("dycon", **{"optimizer.learning_rate": "fast"})
    with pytest.raises(ConfigError, match="no preset 'best'"):
        make_config("dycon", "best")
    assert parse_overrides(["a=1", "b=[1,2]", "c=x"]) == {"a": 1, "b": [1, 2], "c": "x"}


def test_the_preset_of_the_paper_can_be_trained(project: Project) -> None:
    config = make_config("dycon", "paper", **(TINY | {"steps": 1, "network.filters": [4, 8, 8]}))
    assert config.network.aspp
    assert list(train(project, config))[-1].event == "finished"


def test_validation_cases_that_were_trained_on_are_reported(project: Project) -> None:
    list(train(project, make_tiny_config("supervised", steps=1)))
    project.set_split("scan-2", "validation")
    events = list(
        train(project, make_tiny_config("supervised", steps=1, init_from=project.runs.get().id))
    )
    warned = [e.message for e in events if e.event == "warning"]
    assert "(scan-2)" in warned[0]


@pytest.mark.parametrize("preset", list_presets())
def test_every_preset_fits_every_method(preset: str) -> None:
    for method in METHODS:
        config = make_config(method, preset)
        assert TrainConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("method", METHODS)
def test_many_classes_and_channels_with_sparse_labels(tmp_path: Path, method: str) -> None:
    """Twenty classes, eight channels, every fifth slice annotated."""
    classes, channels = 20, 8
    project = Project.create(
        tmp_path / "p",
        classes=classes_from_names([f"part {i}" for i in range(classes)]),
        channels=[f"channel {i}" for i in range(channels)],
    )
    rng = np.random.default_rng(0)
    groups = []
    for case in range(3):
        label = np.zeros((20, 16, 16), np.uint8)
        label[2:18, 2:14, 2:14] = rng.integers(1, classes + 1, (16, 12, 12))
        groups.append(
            [
                save_nifti(
                    tmp_path / f"case-{case}_{channel}.nii.gz",
                    (label * (channel + 1) + rng.normal(size=label.shape)).astype(np.float32),
                )
                for channel in range(channels)
            ]
        )
    project.add_cases(groups, ids=["a", "b", "c"])
    label = np.full(project.read_image("a").shape, 255, np.uint8)
    drawn = np.zeros((4, *label.shape[1:]), np.uint8)
    drawn[:, 4:10, 4:10] = rng.integers(1, classes + 1, (4, 6, 6))
    label[::5][:4] = drawn
    project.labels.save("a", label)
    events = list(train(project, make_tiny_config(method, steps=2, **{"secl.weight": 1.0})))
    assert events[-1].event == "finished"
    assert events[-1].skipped == 0
    model = load_model(project.runs.get().weights_path)
    assert (model.channels, len(model.class_values)) == (channels, classes)
