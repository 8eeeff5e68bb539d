"""Sessions and runs in other processes: attaching, stopping, crashes, late events."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from napari_dycon.application import engine_process
from napari_dycon.application.training.status import RunStatus, apply_event
from napari_dycon.core.heartbeat import ProcessIdentity
from napari_dycon.engine.config import make_config
from napari_dycon.project.runs.events import (
    Event,
    FailedEvent,
    FinishedEvent,
    PreparingEvent,
    RegistrationEvent,
    StartedEvent,
    StepEvent,
    StoppedEvent,
)
from napari_dycon.project.store import Project
from napari_dycon.session import Session


def test_a_session_attaches_to_a_resumed_run(project: Project) -> None:
    run = project.runs.create("dycon", make_config("dycon").to_dict())
    run.append_event(StartedEvent())
    for step in (1, 2, 3):
        run.append_event(StepEvent(step=step, progress=0.1))
    run.append_event(StoppedEvent(step=3))
    run.append_event(StartedEvent(resumed_from_step=2))  # where its last checkpoint was
    run.append_event(StepEvent(step=3, progress=0.1))
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        engine_process.write_identity(run, ProcessIdentity.from_pid(process.pid))
        assert engine_process.is_running(run)
        events = engine_process.follow_training(run)
        reported = [next(events) for _ in range(5)]
        assert [e.event for e in reported] == ["started", "step", "step", "step", "idle"]
        assert [e.step for e in reported[1:4]] == [1, 2, 3]
        run.append_event(FinishedEvent())
        assert next(e for e in events if e.event != "idle").event == "finished"
    finally:
        process.kill()
        process.wait()
    assert not engine_process.is_running(run)


def test_a_process_is_not_mistaken_for_another_session(project: Project) -> None:
    run = project.runs.create("dycon", {})
    engine_process.write_identity(run, ProcessIdentity.current())
    assert not engine_process.is_running(run)


def test_events_of_a_closed_project_are_ignored(project: Project) -> None:
    session = Session()
    session.open_project(project.path)
    run = project.runs.create("dycon", {})
    session.run_controller._run = run
    session.close_project()
    session.run_controller._on_event(run, StepEvent(step=1, progress=0.5, loss=1.0))
    assert session.status == RunStatus()


def test_a_prediction_that_cannot_start_leaves_the_session_usable(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session()
    session.open_project(project.path)
    (project.runs.create("dycon", {}).folder / "weights.safetensors").write_bytes(b"")
    ended: list[Event] = []
    session.event.connect(ended.append)

    def refuse(*_: Any) -> None:
        raise OSError("no process can be made")

    monkeypatch.setattr(engine_process, "_launch", refuse)
    for number in (1, 2):
        session.predict(["scan-3"])
        while len(ended) < number:
            pass
        assert ended[-1] == FailedEvent(message="no process can be made")


def test_stopping_stays_shown_until_the_end() -> None:
    status = RunStatus("stopping", "001")
    for event in (
        PreparingEvent(done=1, total=2),
        RegistrationEvent(done=1, total=2),
        StepEvent(step=1, progress=0.1, loss=None, remaining_s=1.0),
    ):
        status = apply_event(status, event)
        assert status.phase == "stopping"
    assert apply_event(status, StoppedEvent()).phase == "idle"


@pytest.mark.skipif(os.name == "nt", reason="Ctrl+C cannot be sent to one process there")
def test_ctrl_c_keeps_the_weights(project: Project) -> None:
    import signal

    arguments = [
        "--device",
        "cpu",
        "--set",
        "batch.patch_size=[16,16,16]",
        "--set",
        "network.filters=[4,8,8]",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "napari_dycon", "train", str(project.path), "--json", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "step":
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=60)
    assert json.loads(out.splitlines()[-1])["event"] == "stopped"
    assert b"Stopping and saving the weights" in err
    assert process.returncode == 0
    assert project.runs.get().has_weights
