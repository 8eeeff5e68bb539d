"""Previews and validation during training: failures of them do not end the run."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_runs import TINY

from napari_dycon.engine.checkpoints.model_file import load_model
from napari_dycon.engine.config import make_config
from napari_dycon.engine.data.prepared_scans import PreparedScans
from napari_dycon.engine.data.preprocessing import prepare_image
from napari_dycon.engine.evaluation.segmentation_metrics import dice_per_class
from napari_dycon.engine.inference.predict import predict_volume
from napari_dycon.engine.training import preview, validation
from napari_dycon.engine.training.run import train
from napari_dycon.project.store import Project

ERRORS = [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 9 GiB")]


@pytest.mark.parametrize("error", ERRORS)
def test_a_preview_that_runs_out_of_memory_does_not_end_the_run(
    project: Project, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(preview, "predict_volume", refuse)
    config = make_config("supervised", **(TINY | {"steps": 30, "intervals.preview_s": 0.0}))
    events = []
    for event in train(project, config):
        events.append(event)
        if event.event == "started":
            project.runs.get(event.run).write_control(preview="scan-4")
    reported = [e.message for e in events if e.event == "warning"]
    assert any(text == "No preview of scan-4: memory ran out for it." for text in reported)
    assert events[-1].event == "finished"


@pytest.mark.parametrize("error", ERRORS)
def test_a_failed_validation_does_not_end_the_run(
    project: Project, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    project.set_split("scan-2", "validation")

    def refuse(*_: Any, **__: Any) -> Any:
        raise error
        yield

    monkeypatch.setattr(validation, "predict_members", refuse)
    config = make_config("supervised", **(TINY | {"steps": 8, "intervals.validation_s": 0.0}))
    events = list(train(project, config))
    reported = [e.message for e in events if e.event == "warning"]
    assert any(
        "Validation case scan-2 could not be evaluated" in text and text.endswith("Memory ran out.")
        for text in reported
    )
    assert events[-1].event == "finished"


def test_an_unreadable_validation_case_does_not_end_the_run(project: Project) -> None:
    project.set_split("scan-2", "validation")
    config = make_config("supervised", **(TINY | {"steps": 8}))
    run = train(project, config)
    events = [next(run)]
    project.image_paths("scan-2")[0].unlink()
    events += list(run)
    reported = [e.message for e in events if e.event == "warning"]
    (text,) = [text for text in reported if "Validation case scan-2 could not be evaluated" in text]
    assert "the uncertainty is not calibrated" in text
    assert events[-1].event == "finished"


def test_other_errors_end_the_run_with_a_reason(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.set_split("scan-2", "validation")

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the driver is gone")
        yield

    monkeypatch.setattr(validation, "predict_members", refuse)
    config = make_config("supervised", **(TINY | {"steps": 8, "intervals.validation_s": 0.0}))
    with pytest.raises(Exception, match="the driver is gone"):
        list(train(project, config))


def test_scores_from_prepared_scans_equal_those_of_reread_scans(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.set_split("scan-2", "validation")
    config = make_config("supervised", **(TINY | {"steps": 12, "optimizer.learning_rate": 0.02}))
    *_, data = (e for e in train(project, config) if e.event == "validation")
    run = project.runs.get()
    model = load_model(run.weights_path)
    assert model.config.batch.patch_size is not None
    volume = project.read_image("scan-2")
    model = dataclasses.replace(model, temperature=1.0)  # it is fitted after the scores
    fresh = predict_volume(model, volume, torch.device("cpu"), fast=True)
    label = project.labels.read("scan-2")
    dice = dice_per_class(fresh.mask, label, [1])[1]
    assert data.mean == pytest.approx(dice, abs=1e-5)

    read: list[str] = []
    usual = Project.read_image
    monkeypatch.setattr(Project, "read_image", lambda s, c: read.append(c) or usual(s, c))
    scans = PreparedScans(project)
    first, again = (scans.read("scan-2", model.config) for _ in range(2))
    assert read == ["scan-2"]
    for grid, prepared in (first, again):
        assert np.array_equal(prepared, prepare_image(volume, model.config))
        assert (grid.shape, grid.spacing_mm) == (volume.shape, volume.spacing_mm)
    assert set(again[0].array.strides) == {0}  # the grid alone: its voxels take no memory
    # What lies in the cache is damaged or gone: made again.
    (cached,) = project.cache_folder.glob("scan-2-*.npy")
    cached.write_bytes(b"no array")
    assert np.array_equal(scans.read("scan-2", model.config)[1], first[1])
    cached.unlink()
    assert np.array_equal(scans.read("scan-2", model.config)[1], first[1])
    assert np.array_equal(scans.read("scan-2", model.config)[1], first[1])
    assert read == ["scan-2"] * 3
