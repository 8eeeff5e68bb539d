"""Runs on other machines: heartbeats decide whether they are running."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import pytest
from helpers.tiny_runs import TINY

from napari_dycon.application import engine_process
from napari_dycon.cli.run_lock import acquire_run, with_process_record
from napari_dycon.core import heartbeat
from napari_dycon.core.heartbeat import HEARTBEAT_TIMEOUT_S, ProcessIdentity, is_recent
from napari_dycon.engine.config import make_config
from napari_dycon.engine.training.run import train
from napari_dycon.errors import BusyError
from napari_dycon.project.runs.metadata import RunControl, RunMetrics
from napari_dycon.project.store import Project
from napari_dycon.session import Session


def wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_remote_run_is_running_while_it_has_a_heartbeat(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = project.runs.create("dycon", make_config("dycon").to_dict())
    engine_process.write_identity(run, ProcessIdentity(4711, "ward-3", time.time()))
    assert engine_process.is_running(run)
    assert engine_process.is_running(run, read_only=True)
    with pytest.raises(BusyError, match="already being trained on ward-3"), acquire_run(run):
        pass
    session = Session()
    session.open_project(project.path)
    assert "on ward-3" in session.status.text
    monkeypatch.setattr(heartbeat, "HEARTBEAT_TIMEOUT_S", 1.0)
    monkeypatch.setattr(engine_process, "LIVENESS_INTERVAL_S", 0.05)
    end = time.monotonic() + 3
    while time.monotonic() < end:  # as long as it gives them
        engine_process.write_identity(run, ProcessIdentity(4711, "ward-3", time.time()))
        time.sleep(0.05)
    assert session.status.phase != "idle"
    wait(lambda: session.status.phase == "idle")  # it ended without a final event
    assert not engine_process.is_running(run)
    with acquire_run(run):
        pass


@pytest.mark.parametrize("seconds", [-HEARTBEAT_TIMEOUT_S - 5, 3600.0, 10 * 365 * 86400.0])
def test_a_heartbeat_in_the_distant_past_or_future_does_not_count(
    project: Project, seconds: float
) -> None:
    run = project.runs.create("dycon", {})
    engine_process.write_identity(run, ProcessIdentity(4711, "ward-3", time.time()))
    date = time.time() + seconds
    os.utime(run.folder / "process.json", (date, date))
    assert not engine_process.is_running(run)


def test_viewing_a_remote_run_writes_no_file(project: Project) -> None:
    run = project.runs.create("dycon", make_config("dycon").to_dict())
    engine_process.write_identity(run, ProcessIdentity(4711, "ward-3", time.time()))
    before = run.folder.stat().st_mtime_ns
    session = Session()
    session.open_project(project.path, read_only=True)
    assert "on ward-3" in session.status.text
    time.sleep(2 * engine_process.LIVENESS_INTERVAL_S)
    session.close_project()
    assert run.folder.stat().st_mtime_ns == before


def test_a_remote_run_does_not_prevent_local_training(project: Project) -> None:
    other_run = project.runs.create("dycon", make_config("dycon").to_dict())
    engine_process.write_identity(other_run, ProcessIdentity(4711, "ward-3", time.time()))
    session = Session()
    session.open_project(project.path)
    assert session.status.run == other_run.id
    own = session.start_training(make_config("supervised", **(TINY | {"steps": 2})))
    session.wait(120)
    assert project.runs.get(own).read_metrics().outcome == "finished"
    assert other_run.read_control() == RunControl()


def test_heartbeats_are_written_during_a_run(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_INTERVAL_S", 0.02)
    run = project.runs.create("dycon", {})
    file = run.folder / "process.json"
    with engine_process.mark_process_alive(run) as taken_over:
        os.utime(file, (0, 0))
        wait(lambda: is_recent(file, time.time()))
        file.unlink()  # removed by the user
        wait(file.exists)
        other = ProcessIdentity(4711, "ward-3", 1.0)

        def other_gives_a_sign() -> bool:
            engine_process.write_identity(
                run, other
            )  # again and again: one of ours may be on its way
            return taken_over() == other

        wait(other_gives_a_sign)
    assert engine_process.read_identity(run) == other  # its file is left to it
    wait(lambda: not any(t.name == "heartbeat" for t in threading.enumerate()))


def test_a_run_resumed_on_another_machine_ends_here(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_INTERVAL_S", 0.02)
    config = make_config("supervised", **(TINY | {"steps": 10_000}))
    events = with_process_record(train(project, config), project, is_acquired=False)
    run = project.runs.get(next(e for e in events if e.event == "started").run)
    with pytest.raises(BusyError, match="taken over on ward-3"):  # noqa: PT012
        for _ in events:
            engine_process.write_identity(run, ProcessIdentity(4711, "ward-3", 1.0))
    assert run.read_metrics() == RunMetrics()
