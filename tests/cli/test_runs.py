"""Which run predicts is said and recorded, and the runs of a project can be listed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from napari_dycon.project.prediction_origin import PredictionOrigin, read_origin
from napari_dycon.project.store import Project

TRAIN = (
    *("--device", "cpu", "--set", "batch.patch_size=[16,16,16]"),
    *("--set", "network.filters=[4,8,8]", "--set", "atlas.max_registration_pairs=0"),
)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def trained(run: Run, project: Project) -> Project:
    """Project with a run of 6 steps that validated, and one of a single step that did not."""
    project.set_split("scan-0", "validation")
    assert run("train", project.path, "--steps", 6, *TRAIN)[0] == 0
    project.set_split("scan-0", "train")
    assert run("train", project.path, "--steps", 1, *TRAIN)[0] == 0
    return project


def test_runs_are_listed(run: Run, trained: Project) -> None:
    code, out, err = run("runs", trained.path)
    assert code == 0
    assert "001-dycon" in out
    assert "002-dycon" in out
    assert "networks only" in out
    assert "Predictions use 002-dycon unless --run is given." in err
    found = json.loads(run("runs", trained.path, "--json")[1])
    assert found["default_run"] == "002-dycon"
    first, second = found["runs"]
    keys = ("steps", "labeled", "validation", "unlabeled")
    assert [tuple(one[key] for key in keys) for one in (first, second)] == [
        (6, 2, 1, 3),
        (1, 3, 0, 3),
    ]
    assert first["state"] == second["state"] == "finished"
    assert 0 <= first["dice"] <= 1
    assert second["dice"] is None
    assert first["elapsed_s"] > 0
    assert first["started"] < first["trained"] < second["trained"]
    assert first["predictions"] == 0


def test_a_project_without_runs(run: Run, project: Project) -> None:
    code, out, err = run("runs", project.path)
    assert (code, out) == (0, "")
    assert "has no runs yet" in err
    assert json.loads(run("runs", project.path, "--json")[1])["runs"] == []


def test_prediction_names_its_run_and_what_it_replaces(
    run: Run, trained: Project, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    folders = ("--images", scans / "images", "--out", out)
    _, _, err = run("predict", trained.path, *folders)
    assert "Run 002-dycon, the newest: 1 step, trained 20" in err
    assert "no validation Dice" in err
    assert "expect poor predictions" in err
    assert "Run 001-dycon was trained much longer (6 steps" in err
    assert "to use it, give --run 001-dycon" in err
    assert "Replacing" not in err
    assert "Replacing" not in run("predict", trained.path, *folders)[2]  # the same weights

    _, text, err = run("predict", trained.path, *folders, "--run", "001-dycon")
    assert "Run 001-dycon: 6 steps" in err
    assert "newest" not in err
    assert "Replacing 6 predictions of 002-dycon (1 step) in" in err
    assert "6 predictions of run 001-dycon" in text
    record = read_origin(out / "scan-3.json")
    assert record is not None
    assert (record.run, record.step, record.classes) == ("001-dycon", 6, {"1": "box"})
    assert record.validation_dice is not None
    assert record.predicted is not None
    assert record.trained is not None
    assert record.predicted >= record.trained

    (out / "scan-3.json").unlink()  # as an older version writes predictions
    _, text, _ = run("predict", trained.path, *folders, "--run", "002-dycon", "--json")
    events = [json.loads(line) for line in text.splitlines()]
    started, summary = events[0], events[-1]
    assert started["event"] == "prediction_started"
    assert (started["run"], started["is_default"], started["step"]) == ("002-dycon", False, 1)
    assert started["replaced"] == {"001-dycon (6 steps)": 5, "an unknown run": 1}
    assert summary == {
        "event": "prediction_summary", "run": "002-dycon", "folder": str(out), "predicted": 6,
        "failed": 0,
    }  # fmt: skip


def test_predictions_of_cases_have_a_record(run: Run, trained: Project) -> None:
    path = trained.predictions.metadata_path("001-dycon", "scan-4")
    code, _, _ = run("predict", trained.path, "--cases", "scan-4", "--run", "001-dycon")
    assert code == 0
    metadata = trained.predictions.read_metadata("001-dycon", "scan-4")
    assert metadata.origin is not None
    assert metadata.origin.step == 6
    assert metadata.features
    # A resumed run has other weights.
    assert run("train", trained.path, "--resume", "001-dycon", "--steps", 8)[0] == 0
    _, _, err = run("predict", trained.path, "--cases", "scan-4", "--run", "001-dycon")
    assert "Replacing 1 prediction of 001-dycon (6 steps)" in err
    # Projects of earlier versions, and damaged records.
    values = json.loads(path.read_text())
    del values["origin"]
    path.write_text(json.dumps(values))
    metadata = trained.predictions.read_metadata("001-dycon", "scan-4")
    assert metadata.origin is None
    assert metadata.features
    path.write_text(json.dumps({**values, "origin": {"run": "001-dycon", "step": "many"}}))
    metadata = trained.predictions.read_metadata("001-dycon", "scan-4")
    assert metadata.origin == PredictionOrigin(run="001-dycon")
    assert metadata.features


def test_a_record_replaces_no_other_file(
    run: Run, trained: Project, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    notes = out / "scan-2.json"
    notes.write_text('{"Modality": "MR"}')
    code, _, err = run("predict", trained.path, "--images", scans / "images", "--out", out)
    assert code == 2
    assert "scan-2.json would be overwritten" in err
    assert [path.name for path in out.iterdir()] == ["scan-2.json"]
    assert notes.read_text() == '{"Modality": "MR"}'
