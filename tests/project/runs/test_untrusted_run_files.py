"""Untrusted settings, metrics and case splits of runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_dycon.engine.data import splits
from napari_dycon.errors import ProjectError
from napari_dycon.project.prediction_store import PredictionMetadata
from napari_dycon.project.runs.metadata import RunControl, RunMetrics
from napari_dycon.project.runs.run import Run
from napari_dycon.project.store import Project


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"[]", "it is not a JSON object"),
        (b"{" * 10**5, "nested too deeply|cannot be read"),
        (b'{"a": ' * 30_000 + b"1" + b"}" * 30_000, "nested too deeply"),
        (b'{"steps": 1, "steps": 2}', "occurs twice"),
        (b'{"steps": ' + b"9" * 10_000 + b"}", "cannot be read"),
        (b'{"a": "' + b"x" * 2**20 + b'"}', "more than the maximum"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_settings_are_read_within_limits(text: bytes, found: str, tmp_path: Path) -> None:
    run = Run(tmp_path)
    for path, read in ((run.config_path, run.read_config), (run.control_path, run.read_control)):
        path.write_bytes(text)
        if path == run.control_path and text == b"[]":
            assert read() == RunControl()
            continue
        with pytest.raises(ProjectError, match=found) as caught:
            read()
        assert len(str(caught.value)) < 500
    run.metrics_path.write_bytes(text * 17 if len(text) > 2**20 else text)
    assert run.read_metrics() in (RunMetrics(), RunMetrics(step=1))


def test_impossible_figures_are_omitted(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.metrics_path.write_text(
        '{"step": "<script>", "dice": 1e999, "labeled": [1], "elapsed_s": -1,'
        ' "outcome": "finished"}'
    )
    assert run.read_metrics() == RunMetrics(outcome="finished")


@pytest.mark.parametrize(
    "text",
    ['{"labeled": [], "unlabeled": [], "validation": [], "class_values": [0]}',
     '{"labeled": ["../x"], "unlabeled": [], "validation": [], "class_values": [1]}',
     '{"labeled": "abc", "unlabeled": [], "validation": [], "class_values": [1]}',
     '{"labeled": [], "unlabeled": [], "validation": [], "class_values": [1, 1]}',
     '{"labeled": []}', "[]", "3", '{"a": '],
)  # fmt: skip
def test_the_case_split_of_a_run_is_checked(text: str, tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text(text)
    assert splits.load_case_split(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"score": "high", "features": [1, "2"]}', PredictionMetadata()),
        ('{"score": 0.5, "features": [1.0]}', PredictionMetadata(score=0.5, features=[1.0])),
        ("[]", PredictionMetadata()),
    ],
)
def test_invalid_prediction_metadata_is_omitted(
    text: str, expected: PredictionMetadata, project: Project
) -> None:
    run = project.runs.create("dycon", {})
    project.predictions.write_metadata(run.id, "scan-0", PredictionMetadata())
    project.predictions.metadata_path(run.id, "scan-0").write_text(text)
    assert project.predictions.read_metadata(run.id, "scan-0") == expected
