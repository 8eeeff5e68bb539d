"""Which case to label next: uncertain, and different from the labeled ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_runs import TINY

from napari_dycon.application.active_learning import Suggester, suggest_cases
from napari_dycon.application.candidate_ranking import rank_candidates
from napari_dycon.application.cases.summaries import CaseSummaries
from napari_dycon.application.cases.thumbnails import draw_thumbnail
from napari_dycon.engine.checkpoints.model_file import load_model
from napari_dycon.engine.config import make_config
from napari_dycon.engine.inference.predict_scans import predict_cases
from napari_dycon.engine.training.run import train
from napari_dycon.project.prediction_store import PredictionMetadata
from napari_dycon.project.store import Project
from napari_dycon.session import Session


def test_of_two_similar_scans_only_one_is_ranked_first() -> None:
    uncertainty = np.array([0.9, 0.89, 0.5, 0.1])
    features = np.array([[5.0, 0.0], [5.0, 0.1], [0.0, 5.0], [0.1, 0.0]])
    order, novelty = rank_candidates(uncertainty, features, np.array([[0.0, 0.0]]))
    assert order[:2] == [0, 2]
    assert novelty[0] > novelty[3]


def test_without_features_only_uncertainty_decides() -> None:
    order, _ = rank_candidates(np.array([0.2, 0.9, 0.5]), None, np.zeros((0, 0)))
    assert order == [1, 2, 0]


def test_thousands_of_cases_are_ranked_quickly() -> None:
    rng = np.random.default_rng(0)
    uncertainty, features = rng.uniform(size=3000), rng.normal(size=(3000, 16))
    order, _ = rank_candidates(uncertainty, features, rng.normal(size=(400, 16)))
    assert sorted(order) == list(range(3000))
    first, last = uncertainty[order[:300]].mean(), uncertainty[order[-300:]].mean()
    assert first > 0.7
    assert last < 0.3


def test_unchanged_predictions_are_not_reread(project: Project, monkeypatch: Any) -> None:
    run = project.runs.create("dycon", {})
    label = project.labels.read("scan-0")
    assert label is not None
    cases = [case.id for case in project.unlabeled_cases()]
    for number, case in enumerate(cases):
        shape = project.read_image(case).shape
        empty = np.zeros(shape, np.float32)
        project.predictions.write(run.id, case, np.zeros(shape, np.uint8), empty, empty)
        facts = PredictionMetadata(score=0.1 * (number + 1), features=[float(number), 1.0])
        project.predictions.write_metadata(run.id, case, facts)
    suggester = Suggester()
    first = suggester.suggest(project)
    read: list[str] = []
    real = project.predictions.read_metadata

    def counted(run_id: str, case_id: str) -> PredictionMetadata:
        read.append(case_id)
        return real(run_id, case_id)

    monkeypatch.setattr(project.predictions, "read_metadata", counted)
    assert suggester.suggest(project) == first
    assert read == []
    project.predictions.write_metadata(
        run.id, cases[0], PredictionMetadata(score=0.9, features=[9.0, 1.0])
    )
    assert suggester.suggest(project)[0].case == cases[0]
    assert read == cases[:1]
    assert project.predictions.newest_run_ids() == dict.fromkeys(cases, run.id)


def test_a_scan_similar_to_labeled_ones_is_ranked_lower() -> None:
    features = np.array([[0.0, 0.0], [4.0, 4.0]])
    order, _ = rank_candidates(np.array([0.5, 0.5]), features, np.array([[0.1, 0.0], [0.0, 0.1]]))
    assert order == [1, 0]


def test_a_real_prediction_stores_what_suggestions_need(project: Project) -> None:
    list(train(project, make_config("dycon", **TINY)))
    run = project.runs.list()[-1]
    model, cpu = load_model(run.weights_path, torch.device("cpu")), torch.device("cpu")
    open_cases = [case.id for case in project.unlabeled_cases()]
    list(predict_cases(project, run.id, model, open_cases, cpu, torch.float32))
    widths = set()
    for case in [*open_cases, *(c.id for c in project.labeled_cases("train"))]:
        features = project.predictions.read_metadata(run.id, case).features
        assert np.isfinite(features).all()
        widths.add(len(features))
    assert widths == {16}  # mean over the scan and over the foreground, of eight channels
    found = suggest_cases(project)
    assert [s.rank for s in found] == [1, 2, 3]
    assert {s.case for s in found} == set(open_cases)
    assert all(s.score is not None and "uncertainty" in s.reason for s in found)
    # An older prediction, of which nothing but the maps is there, still counts.
    (project.path / "predictions" / run.id / f"{open_cases[0]}.json").unlink()
    assert {s.case for s in suggest_cases(project)} == set(open_cases)


def test_summaries_contain_dice_hotspot_and_thumbnail(project: Project) -> None:
    session = Session()
    session.open_project(project.path)
    summaries = CaseSummaries(
        session.state, session.task_runner, session.active_learning, session.active_agreement
    )
    run = project.runs.create("dycon", {})
    label = project.labels.read("scan-0")
    assert label is not None
    empty = np.zeros(label.shape, np.float32)
    prediction = label.copy()
    prediction[tuple(np.argwhere(label == 1)[0])] = 0  # one voxel of 512
    project.predictions.write(run.id, "scan-0", prediction, empty, empty)
    summaries.refresh()
    assert summaries.get("scan-0").dice == pytest.approx(1022 / 1023)
    assert summaries.get("scan-3").dice is None
    suggestion = summaries.get("scan-3").suggestion
    assert suggestion is not None
    assert suggestion.reason == "no prediction yet"
    assert summaries.get("scan-5").thumbnail is None  # it was not requested
    summaries.request_thumbnails(["scan-5"])
    picture = summaries.get("scan-5").thumbnail
    assert picture is not None
    assert (picture.ndim, max(picture.shape)) == (2, 48)
    assert picture.max() > 200
    kept = project.path / "cache" / "pictures" / "scan-5.npy"
    kept.write_bytes(b"no picture")  # a damaged one is drawn again
    again = CaseSummaries(
        session.state, session.task_runner, session.active_learning, session.active_agreement
    )
    again.request_thumbnails(["scan-5"])
    assert np.array_equal(again.get("scan-5").thumbnail, picture)
    project.labels.save("scan-0", np.zeros_like(label))
    summaries.refresh()
    assert summaries.get("scan-0").dice is None  # nothing of the structure is drawn any more


def test_a_flat_scan_has_a_thumbnail_of_its_aspect_ratio(project: Project) -> None:
    picture = draw_thumbnail(project, "scan-1")
    volume = project.read_image("scan-1")
    _, height, width = np.multiply(volume.shape, volume.spacing_mm)
    assert picture.shape == (48, round(48 * width / height))
