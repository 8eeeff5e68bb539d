"""Automatically generated templates: unlabeled scans with predictions as additional atlases."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest
import torch
from helpers.tiny_runs import TINY

from napari_dycon.engine.atlas.templates import attach_atlases
from napari_dycon.engine.checkpoints.model_file import TrainedModel, load_model
from napari_dycon.engine.config import make_config
from napari_dycon.engine.data.preprocessing import read_image_array, read_label_array
from napari_dycon.engine.inference.predict import predict_volume
from napari_dycon.engine.inference.progress import PredictionProgress
from napari_dycon.engine.training.run import train
from napari_dycon.errors import ConfigError
from napari_dycon.project.label_store import LabelStore
from napari_dycon.project.runs.events import Event
from napari_dycon.project.runs.run import Run
from napari_dycon.project.store import Project

CPU = torch.device("cpu")


def train_run(project: Project, method: str = "dycon", **changes: object) -> Run:
    settings = TINY | {"steps": 2, "atlas.weight": 0.4, "atlas.templates": 2}
    list(train(project, make_config(method, **(settings | changes))))
    return project.runs.list()[-1]


def load_with_templates(project: Project, run: Run) -> tuple[TrainedModel, list[Event]]:
    events: list[Event] = []
    model = load_model(run.weights_path)
    return attach_atlases(project, run, model, CPU, torch.float32, events.append), events


def test_progress_is_reported_before_each_template(project: Project) -> None:
    run, progress = train_run(project), PredictionProgress(3)
    events: list[Event] = []
    model = load_model(run.weights_path)
    attach_atlases(project, run, model, CPU, torch.float32, events.append, progress=progress)
    assert [e.event for e in events] == ["predicting", "templates"] * 2
    assert [(e.done, e.total) for e in events[::2]] == [(0, 5), (1, 5)]
    assert [e.case for e in events[::2]] == [e.case for e in events[1::2]]
    assert (progress.n_finished, progress.total) == (2, 5)
    events.clear()
    attach_atlases(project, run, model, CPU, torch.float32, events.append, progress=progress)
    assert (events, progress.total) == ([], 5)  # they are there


def test_templates_are_predicted_once(project: Project) -> None:
    run = train_run(project)
    model, events = load_with_templates(project, run)
    drawn, templates = model.atlases
    assert [v.id for v in drawn] == [case.id for case in project.labeled_cases()]
    unlabeled = {case.id for case in project.unlabeled_cases()}
    assert len(templates) == 2
    assert {v.id for v in templates} <= unlabeled
    assert [e.case for e in events] == [v.id for v in templates]
    assert [(e.event, e.done, e.total) for e in events] == [
        ("templates", 1, 2),
        ("templates", 2, 2),
    ]
    for atlas in templates:
        label = read_label_array(atlas.label)
        assert label.shape == read_image_array(atlas.image).shape[1:]
        assert int(label.max()) <= len(model.class_values)
    before = [atlas.label.stat().st_mtime_ns for atlas in templates]
    model, events = load_with_templates(project, run)
    assert events == []
    assert [atlas.label.stat().st_mtime_ns for atlas in model.atlases[1]] == before


def test_no_label_of_a_template_is_read(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train_run(project)
    monkeypatch.setattr(LabelStore, "read", lambda *_, **__: pytest.fail("a label was read"))
    model, _ = load_with_templates(project, run)
    assert len(model.atlases[1]) == 2


def test_new_weights_need_new_templates(project: Project) -> None:
    run = train_run(project)
    old = load_with_templates(project, run)[0].atlases[1]
    list(train(project, load_model(run.weights_path).config.with_changes(steps=4), run))
    model, events = load_with_templates(project, run)
    assert len(events) == 2
    assert all(atlas.label.exists() for atlas in old)  # another process may still use these
    assert all(atlas.label.exists() for atlas in model.atlases[1])
    os.utime(old[0].label.parent, (0, 0))
    assert load_with_templates(project, run)[1] == []
    assert not any(atlas.label.exists() for atlas in old)


@pytest.mark.parametrize("damage", [b"", b"no array", None])
def test_damaged_templates_are_predicted_again(project: Project, damage: bytes | None) -> None:
    run = train_run(project)
    model, _ = load_with_templates(project, run)
    first, second = model.atlases[1]
    volume = project.read_image("scan-4")
    before = predict_volume(model, volume, CPU)
    if damage is None:  # of another scan
        np.save(first.label, np.zeros((3, 3, 3), np.uint8))
        np.save(second.label, np.full_like(read_label_array(second.label), 7))
    else:
        first.label.write_bytes(damage)
        second.image.write_bytes(damage)
    model, events = load_with_templates(project, run)
    assert [e.case for e in events] == [first.id, second.id]
    assert np.array_equal(predict_volume(model, volume, CPU).uncertainty, before.uncertainty)


def test_a_read_only_project_gets_no_templates(project: Project) -> None:
    run = train_run(project)
    project = Project.open(project.path, read_only_reason="it is looked at")
    model, events = load_with_templates(project, run)
    assert (model.atlases[1], events) == ((), [])
    assert not list(run.state_folder.glob("templates-*"))


def test_without_memory_for_fusion_only_networks_predict(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = load_with_templates(project, train_run(project))
    volume = project.read_image(project.unlabeled_cases()[-1].id)
    alone = predict_volume(dataclasses.replace(model, atlases=()), volume, CPU)

    def refuse(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("napari_dycon.engine.inference.predict.segment_with_atlases", refuse)
    found = predict_volume(model, volume, CPU)
    assert np.array_equal(found.uncertainty, alone.uncertainty)


def test_without_memory_for_label_comparison_only_networks_predict(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("CUDA out of memory")

    run = train_run(project)
    monkeypatch.setattr("napari_dycon.engine.atlas.templates.can_atlases_agree", refuse)
    assert load_with_templates(project, run)[0].atlases == ()


def test_templates_change_a_prediction(project: Project) -> None:
    run = train_run(project)
    model, _ = load_with_templates(project, run)
    volume = project.read_image(project.unlabeled_cases()[-1].id)
    together = predict_volume(model, volume, CPU)
    again = predict_volume(model, volume, CPU)
    assert np.array_equal(together.uncertainty, again.uncertainty)
    few = dataclasses.replace(model, atlases=model.atlases[:1])
    assert not np.array_equal(together.uncertainty, predict_volume(few, volume, CPU).uncertainty)


def test_without_unlabeled_scans_there_are_no_templates(project: Project) -> None:
    model, events = load_with_templates(project, train_run(project, "supervised"))
    assert len(model.atlases[0]) == len(project.labeled_cases())
    assert model.atlases[1:] == ((),)
    assert events == []
    model, events = load_with_templates(project, train_run(project, **{"atlas.templates": 0}))
    assert len(model.atlases) == 1
    assert events == []
    model, events = load_with_templates(project, train_run(project, **{"atlas.weight": 0.0}))
    assert model.atlases == ((),)
    assert events == []


def test_a_missing_scan_is_not_used_as_template(project: Project) -> None:
    run = train_run(project)
    gone = load_with_templates(project, run)[0].atlases[1][0].id
    project.image_paths(gone)[0].unlink()
    model, events = load_with_templates(project, run)
    assert gone not in [atlas.id for atlas in model.atlases[1]]
    assert len(model.atlases[1]) == 1
    assert events == []


def test_the_number_of_templates_is_limited() -> None:
    with pytest.raises(ConfigError, match="templates is 101"):
        make_config("dycon", **{"atlas.templates": 101})
