"""The application without a window, as scripts use it."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from helpers.tiny_runs import TINY

from napari_dycon.application.hotspots import find_hotspots
from napari_dycon.engine.config import make_config
from napari_dycon.errors import BusyError, ConfigError, ProjectError, UserError
from napari_dycon.project.runs.events import Event
from napari_dycon.project.store import Project
from napari_dycon.session import Session


@pytest.fixture
def session(project: Project) -> Session:
    made = Session()
    made.open_project(project.path)
    return made


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def write_prediction(session: Session, case: str, level: float) -> str:
    """Write a made-up prediction of a case with two uncertain places."""
    project = session.project
    assert project is not None
    run = project.runs.list()[0] if project.runs.list() else project.runs.create("dycon", {})
    shape = project.read_image(case).shape
    mask = np.zeros(shape, np.uint8)
    mask[4:12, 4:12, 4:12] = 1
    uncertainty = np.full(shape, 0.01, np.float32)
    uncertainty[4:6, 4:6, 4:6] = level
    uncertainty[9:12, 9:12, 9:12] = level
    project.predictions.write(run.id, case, mask, uncertainty, uncertainty / 2)
    return run.id


def test_edits_in_place_are_saved_when_the_case_changes(session: Session) -> None:
    session.show_case("scan-3")
    saved: list[str] = []
    session.label_saved.connect(saved.append)
    session.save_label()
    assert saved == []  # nothing was drawn, nothing is written
    session.case.label[3, 3, 3] = 1
    assert session.has_unsaved_changes
    session.show_case("scan-4")
    assert saved == ["scan-3"]
    assert session.project.labels.read("scan-3")[3, 3, 3] == 1


def test_completing_a_case_labels_the_rest_as_background(session: Session) -> None:
    session.show_case("scan-3")
    with pytest.raises(UserError, match="has no annotation yet"):
        session.set_case_status("scan-3", "labeled")
    session.case.label[3:6, 3:6, 3:6] = 1
    session.set_case_status("scan-3", "labeled")
    label = session.project.labels.read("scan-3")
    assert (np.count_nonzero(label == 1), np.count_nonzero(label == 255)) == (27, 0)
    assert session.project.get_case("scan-3").status == "labeled"


def test_predictions_are_accepted_completely_or_by_class(session: Session) -> None:
    write_prediction(session, "scan-3", 0.9)
    session.show_case("scan-3")
    session.case.label[0] = 0
    assert session.accept_prediction([1]) == 8**3
    assert session.project.get_case("scan-3").status == "in_progress"
    session.accept_prediction()
    assert np.array_equal(session.project.labels.read("scan-3"), session.case.prediction)
    session.show_case("scan-4")
    with pytest.raises(UserError, match="no prediction yet"):
        session.accept_prediction()


def test_uncertain_regions_are_visited_cyclically_by_uncertainty(session: Session) -> None:
    write_prediction(session, "scan-3", 0.9)
    session.show_case("scan-3")
    first, second, third = (session.next_uncertain() for _ in range(3))
    spacing = session.case.image.spacing_mm
    assert first == pytest.approx(tuple(10 * s for s in spacing))
    assert second != first
    assert third == first


def test_a_flat_map_has_no_hotspots() -> None:
    assert find_hotspots(np.full((8, 8, 8), 0.02, np.float32)) == []


def test_the_least_certain_case_is_suggested_first(session: Session) -> None:
    write_prediction(session, "scan-4", 0.3)
    write_prediction(session, "scan-5", 0.8)
    assert session.suggest_next() == ["scan-5", "scan-4", "scan-3"]


def test_train_and_predict_from_a_script(session: Session) -> None:
    session.show_case("scan-5")
    seen: list[Event] = []
    session.event.connect(seen.append)
    run = session.start_training(make_config("dycon", **TINY), steps=10_000)
    with pytest.raises(BusyError, match=f"Run {run} is running"):
        session.start_training()
    other = Session()
    other.open_project(session.project.path)  # a second window finds the run
    wait_for(lambda: any(e.event == "step" for e in seen))
    session.stop()
    session.wait(60)
    assert seen[-1].event == "stopped"
    other.wait(10)
    assert session.project.runs.get().id == run
    session.predict(["scan-5"])
    session.wait(60)
    assert seen[-1].event == "prediction_finished"
    wait_for(lambda: session.case.prediction is not None and not session.case.is_preliminary)
    assert session.project.predictions.list_run_ids("scan-5") == [run]


def test_a_method_and_a_preset_of_a_script_are_used(session: Session) -> None:
    run = session.start_training(method="supervised", preset="paper", steps=1)
    session.stop()
    session.wait(60)
    config = session.project.runs.get(run).read_config()
    assert (config["method"], config["preset"]) == ("supervised", "paper")
    assert config["optimizer"]["name"] == "sgd"
    with pytest.raises(ConfigError, match="method is 'superwised'; expected one of: dycon"):
        session.start_training(method="superwised")
    for changes in ({"method": "supervised"}, {"preset": "paper"}):
        with pytest.raises(ConfigError, match="cannot be combined with a config"):
            session.start_training(make_config("dycon"), **changes)
    with pytest.raises(ConfigError, match="expected it as an argument"):
        make_config("dycon", method="supervised")


def test_a_run_that_dies_is_reported(session: Session) -> None:
    reported: list[str] = []
    session.message.connect(lambda _, text: reported.append(text))
    session.start_training(make_config("dycon", **TINY), init_from="999-none")
    session.wait(60)
    assert "'999-none' does not exist" in reported[-1]


def test_errors_reach_the_caller_of_a_script(session: Session) -> None:
    with pytest.raises(ProjectError, match="does not exist"):
        session.open_project("/nowhere/at/all")
    with pytest.raises(UserError, match="no case 'x'"):
        session.show_case("x")
    with pytest.raises(UserError, match="No run is active"):
        session.pause()
