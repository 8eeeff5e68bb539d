"""Unlabeled scans that have a say in predictions, with what was predicted in them."""

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


def trained(project: Project, method: str = "dycon", **changes: object) -> Run:
    settings = TINY | {"steps": 2, "atlas.weight": 0.4, "atlas.templates": 2}
    list(train(project, make_config(method, **(settings | changes))))
    return project.runs.list()[-1]


def ready(project: Project, run: Run) -> tuple[TrainedModel, list[Event]]:
    events: list[Event] = []
    model = load_model(run.weights_path)
    return attach_atlases(project, run, model, CPU, torch.float32, events.append), events


def test_progress_is_told_before_each_of_them(project: Project) -> None:
    run, progress = trained(project), PredictionProgress(3)
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


def test_they_are_predicted_once(project: Project) -> None:
    run = trained(project)
    model, events = ready(project, run)
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
    for voter in templates:
        label = read_label_array(voter.label)
        assert label.shape == read_image_array(voter.image).shape[1:]
        assert int(label.max()) <= len(model.class_values)
    before = [voter.label.stat().st_mtime_ns for voter in templates]
    model, events = ready(project, run)
    assert events == []
    assert [voter.label.stat().st_mtime_ns for voter in model.atlases[1]] == before


def test_no_label_of_theirs_is_read(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(project)
    monkeypatch.setattr(LabelStore, "read", lambda *_, **__: pytest.fail("a label was read"))
    model, _ = ready(project, run)
    assert len(model.atlases[1]) == 2


def test_new_weights_want_new_ones(project: Project) -> None:
    run = trained(project)
    old = ready(project, run)[0].atlases[1]
    list(train(project, load_model(run.weights_path).config.with_changes(steps=4), run))
    model, events = ready(project, run)
    assert len(events) == 2
    assert all(voter.label.exists() for voter in old)  # somebody may predict with these still
    assert all(voter.label.exists() for voter in model.atlases[1])
    os.utime(old[0].label.parent, (0, 0))
    assert ready(project, run)[1] == []
    assert not any(voter.label.exists() for voter in old)


@pytest.mark.parametrize("damage", [b"", b"no array", None])
def test_damaged_ones_are_made_again(project: Project, damage: bytes | None) -> None:
    run = trained(project)
    model, _ = ready(project, run)
    first, second = model.atlases[1]
    volume = project.read_image("scan-4")
    before = predict_volume(model, volume, CPU)
    if damage is None:  # of another scan
        np.save(first.label, np.zeros((3, 3, 3), np.uint8))
        np.save(second.label, np.full_like(read_label_array(second.label), 7))
    else:
        first.label.write_bytes(damage)
        second.image.write_bytes(damage)
    model, events = ready(project, run)
    assert [e.case for e in events] == [first.id, second.id]
    assert np.array_equal(predict_volume(model, volume, CPU).uncertainty, before.uncertainty)


def test_in_a_project_that_is_only_shown_none_is_made(project: Project) -> None:
    run = trained(project)
    project = Project.open(project.path, read_only_reason="it is looked at")
    model, events = ready(project, run)
    assert (model.atlases[1], events) == ((), [])
    assert not list(run.state_folder.glob("templates-*"))


def test_without_memory_for_votes_networks_predict_alone(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = ready(project, trained(project))
    volume = project.read_image(project.unlabeled_cases()[-1].id)
    alone = predict_volume(dataclasses.replace(model, atlases=()), volume, CPU)

    def refuse(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("napari_dycon.engine.inference.predict.segment_with_atlases", refuse)
    found = predict_volume(model, volume, CPU)
    assert np.array_equal(found.uncertainty, alone.uncertainty)


def test_where_memory_does_not_suffice_to_compare_labels_networks_predict_alone(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("CUDA out of memory")

    run = trained(project)
    monkeypatch.setattr("napari_dycon.engine.atlas.templates.can_atlases_agree", refuse)
    assert ready(project, run)[0].atlases == ()


def test_they_change_a_prediction(project: Project) -> None:
    run = trained(project)
    model, _ = ready(project, run)
    volume = project.read_image(project.unlabeled_cases()[-1].id)
    together = predict_volume(model, volume, CPU)
    again = predict_volume(model, volume, CPU)
    assert np.array_equal(together.uncertainty, again.uncertainty)
    few = dataclasses.replace(model, atlases=model.atlases[:1])
    assert not np.array_equal(together.uncertainty, predict_volume(few, volume, CPU).uncertainty)


def test_without_unlabeled_scans_there_are_none(project: Project) -> None:
    model, events = ready(project, trained(project, "supervised"))
    assert len(model.atlases[0]) == len(project.labeled_cases())
    assert model.atlases[1:] == ((),)
    assert events == []
    model, events = ready(project, trained(project, **{"atlas.templates": 0}))
    assert len(model.atlases) == 1
    assert events == []
    model, events = ready(project, trained(project, **{"atlas.weight": 0.0}))
    assert model.atlases == ((),)
    assert events == []


def test_a_scan_that_is_gone_is_left_out(project: Project) -> None:
    run = trained(project)
    gone = ready(project, run)[0].atlases[1][0].id
    project.image_paths(gone)[0].unlink()
    model, events = ready(project, run)
    assert gone not in [voter.id for voter in model.atlases[1]]
    assert len(model.atlases[1]) == 1
    assert events == []


def test_their_number_has_bounds() -> None:
    with pytest.raises(ConfigError, match="templates is 101"):
        make_config("dycon", **{"atlas.templates": 101})
