"""Predictions in a real engine process: phases, cancellation, messages."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_runs import TINY

from napari_dycon.application.predictions.status import (
    PredictionStatus,
    apply_event,
    describe_incomplete_ranking,
    describe_progress,
    describe_result,
    describe_status,
)
from napari_dycon.engine.config import make_config
from napari_dycon.engine.training.run import train
from napari_dycon.errors import BusyError
from napari_dycon.project.runs.events import (
    Event,
    PredictedEvent,
    PredictionProgressEvent,
    PreliminaryEvent,
    SkippedEvent,
)
from napari_dycon.project.store import Project
from napari_dycon.session import Session

SETTINGS = TINY | {"steps": 2, "atlas.weight": 0.4, "atlas.templates": 2}


class Follower:
    """A session with what it reports."""

    def __init__(self, project: Project) -> None:
        self.session = Session()
        self.session.open_project(project.path)
        self.events: list[Event] = []
        self.messages: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.session.event.connect(self.events.append)
        self.session.message.connect(lambda level, text: self.messages.append((level, text)))
        self.session.review.predictions.status_changed.connect(self._on_status)

    def _on_status(self, status: PredictionStatus | None) -> None:
        if status is not None:
            self.texts.append(describe_status(status))

    @property
    def kinds(self) -> list[str]:
        return [event.event for event in self.events]

    def wait_for(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, (self.kinds, self.messages)
            time.sleep(0.01)

    def wait_for_end(self) -> None:
        self.wait_for(
            lambda: (
                not self.session.review.is_predicting
                and any(text.startswith("Predict") for _, text in self.messages)
            )
        )


@pytest.fixture
def follower(project: Project) -> Iterator[Follower]:
    list(train(project, make_config("dycon", **SETTINGS)))
    follower = Follower(project)
    yield follower
    follower.session.close_project()


def list_temporary_files(project: Project) -> list[Path]:
    return list(project.path.rglob(".*.tmp.*"))


def test_the_active_case_is_answered_first_and_every_phase_is_shown(follower: Follower) -> None:
    session = follower.session
    session.show_case("scan-4")
    shown: list[tuple[str, bool]] = []
    session.prediction_changed.connect(lambda case: shown.append((case.id, case.is_preliminary)))
    session.predict(["scan-3", "scan-4"])
    assert follower.texts[0].startswith("Loading the network")  # at once
    with pytest.raises(BusyError, match="already running"):
        session.predict(["scan-5"])
    follower.wait_for_end()
    assert shown == [("scan-4", True), ("scan-4", False)]
    order = [
        (event.event, event["case"])
        for event in follower.events
        if event.event in ("preliminary", "templates", "predicted")
    ]
    assert order[0] == ("preliminary", "scan-4")
    assert [kind for kind, _ in order[1:3]] == ["templates", "templates"]
    assert order[3:] == [("predicted", "scan-4"), ("predicted", "scan-3")]
    assert follower.kinds[-1] == "prediction_finished"
    level, text = follower.messages[-1]
    assert (level, text.startswith("Predictions of 2 scans updated in ")) == ("result", True)
    assert session.case is not None
    assert not session.case.is_preliminary


def test_cancel_keeps_finished_cases_and_leaves_nothing_half_written(
    follower: Follower, project: Project
) -> None:
    session = follower.session
    session.show_case("scan-4")
    session.predict(["scan-4", "scan-3", "scan-5"])
    follower.wait_for(lambda: "predicted" in follower.kinds)
    begin = time.monotonic()
    session.review.predictions.cancel()
    assert follower.texts[-1] == "Canceling…"
    follower.wait_for_end()
    assert time.monotonic() - begin < 6  # 2 s on a machine that is not busy
    assert follower.kinds[-1] in ("prediction_canceled", "prediction_finished")
    run = project.runs.get().id
    done = [event["case"] for event in follower.events if event.event == "predicted"]
    for case in done:
        assert project.predictions.read(run, case) is not None
        assert project.predictions.read_metadata(run, case).score is not None
    assert list_temporary_files(project) == []
    expected = f"Predictions of {len(done)} of 3 scans updated; canceled."
    assert follower.messages[-1][1] == expected or len(done) == 3


def test_a_preliminary_prediction_stays_marked_after_cancel(
    follower: Follower, project: Project
) -> None:
    session = follower.session
    session.show_case("scan-4")
    session.predict(["scan-4"])
    follower.wait_for(lambda: "preliminary" in follower.kinds)
    session.review.predictions.cancel()
    follower.wait_for_end()
    if follower.kinds[-1] == "prediction_canceled" and "predicted" not in follower.kinds:
        assert project.predictions.list_run_ids("scan-4") == []
        session.show_case("scan-3")
        session.show_case("scan-4")
        assert session.case is not None
        assert session.case.is_preliminary
        assert session.accept_prediction() >= 0  # allowed
        assert any("still preliminary" in text for _, text in follower.messages)
    # A later prediction goes on from here.
    follower.messages.clear()
    session.predict(["scan-4"])
    follower.wait_for_end()
    assert session.case is not None
    assert project.predictions.find_newest("scan-4") == (project.runs.get().id, "complete")


def test_cancel_while_the_network_is_loaded_ends_at_once(follower: Follower) -> None:
    follower.session.predict(["scan-4"])
    follower.session.review.predictions.cancel()
    follower.session.review.predictions.cancel()  # no effect
    begin = time.monotonic()
    follower.wait_for_end()
    assert time.monotonic() - begin < 6
    assert follower.messages[-1][1] == "Prediction of scan-4 canceled."
    assert "predicted" not in follower.kinds


def test_texts_of_the_phases() -> None:
    def describe(phase: str, **values: Any) -> str:
        return describe_progress(PredictionProgressEvent(phase=phase, **values))

    assert describe("loading") == "Loading the network…"
    assert describe("preliminary", case="a", done=0, total=1) == "First quick prediction of a…"
    text = describe("references", case="x", done=2, total=8, remaining_s=361.0)
    assert text == "Preparing reference scans: 3 of 8 (once per training), about 6 min left"
    assert describe("predicting", case="a", done=0, total=1, remaining_s=42.0) == (
        "Predicting a, about 40 s left"
    )
    assert describe("predicting", case="a", done=8, total=8, remaining_s=2.0) == (
        "Predicting a (8 of 8), a few seconds left"
    )
    assert describe("of a newer version") == "Predicting…"


def test_results_in_words() -> None:
    status = PredictionStatus("001-dycon", ("a", "b", "c"))
    assert describe_incomplete_ranking(None) == ""
    assert describe_incomplete_ranking(PredictionStatus("r", ("a",))) == ""
    for event in (
        PreliminaryEvent(case="a"),
        PredictedEvent(case="a"),
        SkippedEvent(case="b"),
    ):
        status = apply_event(status, event)
    assert not status.is_refining("a")
    assert describe_incomplete_ranking(status) == (
        "This ranking is preliminary: 2 of 3 cases predicted so far."
    )
    canceled = dataclasses.replace(status, is_canceling=True)
    assert describe_result(canceled, 3) == "Predictions of 1 of 3 scans updated; canceled."
    found = PredictedEvent(case="LA_006", volume_ml={"1": 80.5})
    one = apply_event(PredictionStatus("r", ("LA_006",)), found)
    assert describe_result(one, 100.2) == (
        "Prediction of LA_006 updated in 1 min 40 s. Next: review the uncertain regions (N)."
    )


def test_an_empty_prediction_is_announced_as_empty() -> None:
    one = apply_event(PredictionStatus("r", ("LA_006",)), PredictedEvent(case="LA_006"))
    assert describe_result(one, 9) == (
        "Prediction of LA_006 updated in 9 s. No structure was found in it. "
        "Next: label more cases, or train longer."
    )
    status = PredictionStatus("r", ("a", "b", "c"), names={"b": "Baseline"})
    for case, volume in (("a", {"1": 3.0}), ("b", {}), ("c", {"1": 0.5})):
        status = apply_event(status, PredictedEvent(case=case, volume_ml=volume))
    assert describe_result(status, 9) == (
        "Predictions of 3 scans updated in 9 s. No structure was found in Baseline. "
        "Next: review the uncertain regions (N)."
    )


def test_texts_have_the_names_that_the_user_chose() -> None:
    event = PredictionProgressEvent(phase="predicting", case="scan-4", done=0, total=1)
    status = PredictionStatus("001-dycon", ("scan-4",), event, names={"scan-4": "Baseline"})
    assert describe_status(status) == "Predicting Baseline…"
    assert describe_result(status, 1.0).startswith("Prediction of Baseline updated")
    canceled = dataclasses.replace(status, is_canceling=True, preliminary=("scan-4",))
    assert describe_result(canceled, 1.0) == (
        "Prediction of Baseline canceled. The prediction of Baseline is still preliminary."
    )
