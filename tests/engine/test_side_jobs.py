"""Pictures and scores beside the steps: when memory runs out for them, the run goes on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_runs import TINY

from napari_dycon.engine import side_jobs
from napari_dycon.engine.checkpoint import load_model
from napari_dycon.engine.config import make_config
from napari_dycon.engine.methods import Step, build_method
from napari_dycon.engine.patches import Batch, LabelledBatch, UnlabelledBatch
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
    (text,) = [text for text in told if "Validation case scan-2 could not be scored" in text]
    assert "the uncertainty is not calibrated" in text
    assert events[-1]["event"] == "finished"


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_a_rehearsed_step_changes_nothing_and_shows_lack_of_memory(
    project: Project, norm: str
) -> None:
    config = make_config("dycon", **(TINY | {"steps": 1, "norm": norm}))
    list(train(project, config))
    run = project.runs()[-1]
    model = load_model(run.weights_path)
    device, noise = torch.device("cpu"), torch.Generator()
    assert model.config.patch is not None
    image = torch.randn(2, 1, *model.config.patch)
    label = (image[:, 0] > 0).long()
    place = torch.full((2, 3), 0.5)
    batch = Batch(
        LabelledBatch(image, label, place, place), UnlabelledBatch(image + 1, place, place)
    )
    step = Step(model.student, model.teacher, batch, 1.0, noise)
    networks = torch.nn.ModuleList([model.student, model.teacher]).train()
    before = {name: tensor.clone() for name, tensor in networks.state_dict().items()}
    side_jobs.rehearse(build_method(config), step, device, torch.float32)
    after = networks.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in model.student.parameters())

    class TooLarge:
        def losses(self, _: Step) -> dict[str, torch.Tensor]:
            raise RuntimeError("CUDA out of memory.")

    with pytest.raises(RuntimeError, match="out of memory"):
        side_jobs.rehearse(TooLarge(), step, device, torch.float32)


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
