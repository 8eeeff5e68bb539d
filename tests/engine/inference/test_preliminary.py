"""Preliminary predictions: one network alone, apart from all that counts on predictions."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_runs import TINY

from napari_dycon.application.active_learning import suggest_cases
from napari_dycon.application.cases.cache import compute_case_state
from napari_dycon.application.cases.loading import load_case
from napari_dycon.engine.checkpoints.model_file import TrainedModel, load_model
from napari_dycon.engine.config import make_config
from napari_dycon.engine.inference.predict import predict_members
from napari_dycon.engine.inference.predict_scans import predict_cases, prepare_scan
from napari_dycon.engine.inference.preliminary import make_preliminary_model, predict_preliminary
from napari_dycon.engine.inference.progress import PredictionProgress
from napari_dycon.engine.training.run import train
from napari_dycon.exports.masks import export_masks
from napari_dycon.exports.options import ExportOptions
from napari_dycon.project.store import Project

CPU = torch.device("cpu")
SETTINGS: dict[str, Any] = TINY | {"steps": 2, "atlas.weight": 0.0}


@pytest.fixture
def model(project: Project) -> TrainedModel:
    list(train(project, make_config("dycon", **SETTINGS)))
    return load_model(project.runs.get().weights_path)


def predict_first(project: Project, model: TrainedModel, *cases: str) -> list[Any]:
    progress = PredictionProgress(len(cases))
    run = project.runs.get().id
    return list(predict_preliminary(project, run, model, cases, CPU, torch.float32, progress))


def test_it_is_the_prediction_of_the_teacher_alone(project: Project, model: TrainedModel) -> None:
    events = predict_first(project, model, "scan-4")
    assert [(event.event, event.case) for event in events] == [("preliminary", "scan-4")]
    case = load_case(project, "scan-4").case
    assert case.is_preliminary
    assert case.disagreement is None  # of one network there is none
    scan = prepare_scan(project.read_image("scan-4"), model, "scan-4")
    (member,) = predict_members(
        make_preliminary_model(model), scan.image, scan.grid.shape, CPU, torch.float32, fast=True
    )
    assert case.prediction is not None
    assert np.array_equal(case.prediction > 0, member.argmax(dim=0).numpy() > 0)


def test_nothing_counts_on_it(project: Project, model: TrainedModel, tmp_path: Any) -> None:
    predict_first(project, model, "scan-4")
    assert project.predictions.list_run_ids("scan-4") == []
    assert project.predictions.newest_run_ids() == {}
    assert {suggestion.score for suggestion in suggest_cases(project)} == {None}
    exported = export_masks(project, tmp_path / "out", "nifti", ExportOptions())
    assert "scan-4" not in [mask.case for mask in exported.masks]


def test_the_complete_prediction_replaces_it(project: Project, model: TrainedModel) -> None:
    run = project.runs.get().id
    before = compute_case_state(project, "scan-4")
    predict_first(project, model, "scan-4")
    during = compute_case_state(project, "scan-4")
    list(predict_cases(project, run, model, ["scan-4"], CPU, torch.float32))
    case = load_case(project, "scan-4").case
    assert not case.is_preliminary
    assert case.disagreement is not None
    folder = project.predictions.path(run, "scan-4", stage="preliminary").parent
    assert list(folder.iterdir()) == []
    # Otherwise the window would go on showing cached arrays.
    assert (
        len({str(state) for state in (before, during, compute_case_state(project, "scan-4"))}) == 3
    )


def test_the_complete_prediction_is_that_without_a_preliminary_one(
    project: Project, model: TrainedModel
) -> None:
    run = project.runs.get().id
    list(predict_cases(project, run, model, ["scan-4"], CPU, torch.float32))
    kinds = ("mask", "uncertainty", "disagreement")
    alone = [project.predictions.path(run, "scan-4", kind).read_bytes() for kind in kinds]
    predict_first(project, model, "scan-4")
    list(predict_cases(project, run, model, ["scan-4"], CPU, torch.float32))
    after = [project.predictions.path(run, "scan-4", kind).read_bytes() for kind in kinds]
    assert after == alone


def test_a_newer_preliminary_prediction_is_shown_before_an_older_complete_one(
    project: Project, model: TrainedModel
) -> None:
    run = project.runs.get().id
    list(predict_cases(project, run, model, ["scan-4"], CPU, torch.float32))
    complete = project.predictions.path(run, "scan-4")
    predict_first(project, model, "scan-4")
    assert project.predictions.find_newest("scan-4") == (run, "preliminary")
    preliminary = project.predictions.path(run, "scan-4", stage="preliminary")
    # As if a process had ended between writing the complete one and removing this one.
    os.utime(preliminary, ns=(0, complete.stat().st_mtime_ns - 1))
    assert project.predictions.find_newest("scan-4") == (run, "complete")


def test_a_scan_that_cannot_be_read_is_left_to_the_complete_prediction(
    project: Project, model: TrainedModel
) -> None:
    project.image_paths("scan-4")[0].write_bytes(b"no scan")
    events = predict_first(project, model, "scan-4", "scan-5")
    assert [event.case for event in events] == ["scan-5"]
    assert project.predictions.find_newest("scan-4") is None


def test_links_out_of_the_project_are_not_followed(
    project: Project, model: TrainedModel, tmp_path: Any
) -> None:
    run = project.runs.get().id
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = project.path / "predictions" / run
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "preliminary").symlink_to(elsewhere, target_is_directory=True)
    assert predict_first(project, model, "scan-4") == []
    assert list(elsewhere.iterdir()) == []
    (elsewhere / "scan-5.nii.gz").write_bytes(b"")
    assert project.predictions.find_newest("scan-5") is None
