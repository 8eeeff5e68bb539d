"""Pictures and scores beside the steps: when memory runs out for them, the run goes on."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_runs import TINY

from napari_dycon.engine import side_jobs
from napari_dycon.engine.config import make_config
from napari_dycon.engine.train import train
from napari_dycon.project.store import Project

ERRORS = [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 9 GiB")]


@pytest.mark.parametrize("error", ERRORS)
def test_a_picture_that_is_too_large_does_not_end_the_run(
    project: Project, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(side_jobs, "predict_volume", refuse)
    config = make_config("supervised", **(TINY | {"steps": 30, "preview_every": 0.0}))
    events = []
    for event in train(project, config):
        events.append(event)
        if event["event"] == "started":
            project.run(event["run"]).write_control(preview="scan-4")
    told = [e["message"] for e in events if e["event"] == "warning"]
    assert any(text == "No preview of scan-4: memory ran out for it." for text in told)
    assert events[-1]["event"] == "finished"


@pytest.mark.parametrize("error", ERRORS)
def test_a_score_that_cannot_be_had_does_not_end_the_run(
    project: Project, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    project.set_split("scan-2", "validation")

    def refuse(*_: Any, **__: Any) -> Any:
        raise error
        yield

    monkeypatch.setattr(side_jobs, "members_on_grid", refuse)
    config = make_config("supervised", **(TINY | {"steps": 8, "validate_every": 0.0}))
    events = list(train(project, config))
    told = [e["message"] for e in events if e["event"] == "warning"]
    assert any(
        "Validation case scan-2 could not be scored" in text and text.endswith("Memory ran out.")
        for text in told
    )
    assert events[-1]["event"] == "finished"


def test_a_validation_case_that_cannot_be_read_does_not_end_the_run(project: Project) -> None:
    project.set_split("scan-2", "validation")
    config = make_config("supervised", **(TINY | {"steps": 8}))
    run = train(project, config)
    events = [next(run)]
    project.image_paths("scan-2")[0].unlink()
    events += list(run)
    told = [e["message"] for e in events if e["event"] == "warning"]
    assert any("Validation case scan-2 could not be scored" in text for text in told)
    assert events[-1]["event"] == "finished"


def test_other_errors_end_it_with_a_reason(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.set_split("scan-2", "validation")

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the driver is gone")
        yield

    monkeypatch.setattr(side_jobs, "members_on_grid", refuse)
    config = make_config("supervised", **(TINY | {"steps": 8, "validate_every": 0.0}))
    with pytest.raises(Exception, match="the driver is gone"):
        list(train(project, config))
