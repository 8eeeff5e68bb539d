"""A preview of a running training never takes the place of a finished prediction unasked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tiny_runs import TINY

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.active_learning import suggest_cases
from napari_dycon.application.predictions.source_text import describe_source, describe_stage
from napari_dycon.engine.config import make_config
from napari_dycon.exports.masks import export_masks
from napari_dycon.exports.options import ExportOptions
from napari_dycon.exports.selection import MaskOrigin
from napari_dycon.project.store import Project
from napari_dycon.session import Session

SETTINGS = TINY | {"steps": 100_000, "intervals.preview_s": 0.0, "validation": False}


@pytest.fixture
def session(project: Project) -> Iterator[Session]:
    session = Session()
    session.open_project(project.path)
    yield session
    if session.status.phase != "idle":
        session.stop()
        session.wait(60)
    session.close_project()


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def write_finished(project: Project, case: str = "scan-4") -> str:
    """Write a finished prediction of an earlier run: structure 2 everywhere."""
    shape = project.read_image(case).shape
    run = project.runs.create("supervised", {})
    uncertainty = np.full(shape, 0.25, np.float32)
    project.predictions.write(run.id, case, np.full(shape, 2, np.uint8), uncertainty, uncertainty)
    return run.id


def stop(session: Session) -> None:
    session.stop()
    session.wait(60)


def get_case(session: Session) -> ActiveCase:
    assert session.case is not None
    return session.case


def test_a_finished_prediction_stays_until_the_preview_is_asked_for(
    session: Session, project: Project
) -> None:
    finished = write_finished(project)
    files = {path: path.read_bytes() for path in (project.path / "predictions").rglob("*.nii.gz")}
    session.show_case("scan-4")
    changed: list[str] = []
    session.prediction_changed.connect(lambda case: changed.append(case.stage))
    run = session.start_training(make_config("supervised", **SETTINGS))
    steps: list[int] = []
    session.event.connect(lambda event: steps.append(event.get("step") or 0))
    wait_for(lambda: max(steps, default=0) > 40)
    assert project.runs.get(run).read_control().preview is None  # no time is spent on it
    assert not changed
    assert get_case(session).run == finished

    assert session.run_controller.find_preview_blocked_reason() == ""
    session.run_controller.show_previews(True)
    wait_for(lambda: get_case(session).is_preview)
    assert get_case(session).run == run
    assert describe_stage(session.case) == "Preview during training"
    # Nothing else takes the preview for a prediction.
    assert project.predictions.newest_run_ids() == {"scan-4": finished}
    assert {one.case: one.score for one in suggest_cases(project)}["scan-4"] == pytest.approx(0.25)

    session.run_controller.show_previews(False)
    assert get_case(session).run == finished
    session.run_controller.show_previews(True)
    wait_for(lambda: get_case(session).is_preview)  # the training may just be writing a newer one
    stop(session)
    assert get_case(session).run == finished
    assert (get_case(session).prediction == 2).all()
    assert session.review.preview_of is None
    assert {path: path.read_bytes() for path in files} == files


def test_a_case_without_prediction_shows_the_preview_as_such(
    session: Session, project: Project, tmp_path: Path
) -> None:
    session.show_case("scan-4")
    run = session.start_training(make_config("supervised", **SETTINGS))
    wait_for(lambda: get_case(session).is_preview)
    assert describe_source(session.case, None, training=run).startswith("Preview during training")
    assert session.run_controller.find_preview_blocked_reason()  # it is shown anyway
    stop(session)
    assert get_case(session).is_preview
    assert "not a finished prediction" in describe_source(session.case, None)
    exported = export_masks(
        project, tmp_path / "out", "nifti", ExportOptions(include_unreviewed=True)
    )
    assert "scan-4" not in [mask.case for mask in exported.masks]


def test_an_accepted_preview_is_not_exported_as_drawn(
    session: Session, project: Project, tmp_path: Path
) -> None:
    case = "scan-4"
    run = project.runs.create("supervised", {}).id
    grid = project.read_image(case)
    mask = np.zeros(grid.shape, np.uint8)
    mask[4:9, 4:9, 4:9] = 1
    project.predictions.write_provisional(
        run, case, mask, np.zeros(grid.shape, np.float32), stage="preview", reference=grid
    )
    session.show_case(case)
    assert get_case(session).is_preview
    session.accept_prediction()
    session.flush()
    exported = export_masks(
        session.require_project(), tmp_path / "out", "nifti", ExportOptions(cases=[case])
    )
    assert [mask.origin for mask in exported.masks] == [MaskOrigin.CORRECTED]


def test_the_finished_prediction_removes_the_preview_of_its_run(project: Project) -> None:
    run = project.runs.create("supervised", {}).id
    grid = project.read_image("scan-4")
    zeros = np.zeros(grid.shape, np.float32)
    store = project.predictions
    store.write_provisional(
        run, "scan-4", zeros.astype(np.uint8), zeros, stage="preview", reference=grid
    )
    assert store.find_newest("scan-4") == (run, "preview")
    assert store.list_run_ids("scan-4") == []
    store.write(run, "scan-4", zeros.astype(np.uint8), zeros, zeros)
    assert store.find_newest("scan-4", preview_of=run) == (run, "complete")
    assert not list((project.path / "predictions" / run / "preview").iterdir())


def test_a_session_that_attaches_withdraws_the_request(session: Session, project: Project) -> None:
    """Otherwise the run would go on predicting a case that is no longer shown."""
    write_finished(project)
    run = session.start_training(make_config("supervised", **SETTINGS))
    project.runs.get(run).write_control(preview="scan-5")
    session.close_project()
    session.open_project(project.path)
    session.show_case("scan-4")
    assert project.runs.get(run).read_control().preview is None
    stop(session)
